"""The names of one directory, found in any spelling."""

from hypothesis import given
from hypothesis import strategies as st

from fimd.casefold.folding import fold
from fimd.casefold.index import NameIndex

NAMES = st.lists(
    st.sampled_from([b"a", b"A", b"ab", b"aB", b"Ab", b"AB", "ä".encode(), "Ä".encode()])
)


def test_a_name_is_found_as_it_is_stored() -> None:
    index = NameIndex([b"ReadMe", b"other"])
    assert index.find(b"readme") == b"ReadMe"
    assert index.find(b"absent") is None


def test_of_rivals_the_folded_spelling_wins() -> None:
    assert NameIndex([b"README", b"readme", b"ReadMe"]).find(b"readme") == b"readme"


def test_of_rivals_without_the_folded_spelling_the_first_in_byte_order_wins() -> None:
    assert NameIndex([b"ReadMe", b"README", b"readMe"]).find(b"readme") == b"README"


def test_the_next_rival_is_found_when_the_first_goes() -> None:
    index = NameIndex([b"README", b"readme", b"ReadMe"])
    index.remove(b"readme")
    assert index.find(b"readme") == b"README"
    index.remove(b"README")
    assert index.find(b"readme") == b"ReadMe"
    assert index.collisions() == []
    index.remove(b"ReadMe")
    assert index.find(b"readme") is None


def test_only_the_winner_of_rivals_is_listed_and_all_are_reported() -> None:
    index = NameIndex([b"B", b"README", b"readme"])
    assert list(index) == [b"B", b"readme"]
    assert index.collisions() == [[b"readme", b"README"]]


@given(NAMES, NAMES)
def test_the_order_of_changes_makes_no_difference(added: list[bytes], removed: list[bytes]) -> None:
    index = NameIndex(added)
    for name in removed:
        index.remove(name)
    anew = NameIndex(sorted(set(added) - set(removed)))
    assert {fold(name): index.find(fold(name)) for name in added} == {
        fold(name): anew.find(fold(name)) for name in added
    }
    assert sorted(index) == sorted(anew)
    assert sorted(index.collisions()) == sorted(anew.collisions())
