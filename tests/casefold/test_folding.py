"""Which names are the same but for case."""

# ruff: noqa: RUF001 -- letters that look alike are what this is about

import sys

from hypothesis import given
from hypothesis import strategies as st

from fimd.casefold.folding import fold, lower

EVERY_CASED_CHARACTER = [
    c
    for c in map(chr, range(sys.maxunicode + 1))
    if not c == c.lower() == c.upper() == c.casefold()
]


def folded(text: str) -> str:
    return fold(text.encode()).decode()


def test_ascii_folds_to_lower_case() -> None:
    assert fold(b"ReadMe.TXT") == b"readme.txt"


def test_letters_beyond_ascii_fold_one_to_one() -> None:
    assert folded("ÄÖÜ-ÉŁ-ΣΑΣ-ЖЯ-ԱԲ") == "äöü-éł-σασ-жя-աբ"


def test_a_final_sigma_is_the_same_as_any_sigma() -> None:
    assert folded("ΟΔΟΣ") == folded("οδος")


def test_what_full_folding_expands_stays_one_letter() -> None:
    assert folded("STRASSE") != folded("straße")
    assert folded("STRAẞE") == folded("straße")
    assert folded("ﬁ") == "ﬁ"


def test_the_turkish_letters_are_not_the_latin_ones() -> None:
    assert len({folded(letter) for letter in "Iİı"}) == 3
    assert folded("I") == folded("i")


def test_the_simple_foldings_added_to_unicode_later_hold_under_every_python() -> None:
    assert [folded(letter) for letter in "\u1fd3\u1fe3\ufb05"] == ["\u0390", "\u03b0", "\ufb06"]


def test_no_normalization_is_done() -> None:
    assert folded("e\u0301") != folded("é")


def test_folding_twice_changes_nothing_for_every_cased_character() -> None:
    wrong = [c for c in EVERY_CASED_CHARACTER if folded(folded(c)) != folded(c)]
    assert not wrong


def test_the_lower_case_spelling_of_every_cased_character_folds_as_the_character_does() -> None:
    wrong = [c for c in EVERY_CASED_CHARACTER if fold(lower(c.encode())) != fold(c.encode())]
    assert not wrong


def test_bytes_that_are_not_utf8_stand_for_themselves_and_the_rest_folds() -> None:
    assert fold(b"\xff\xfeABC\xc3\x84\xc3") == b"\xff\xfeabc\xc3\xa4\xc3"
    assert fold(b"\xed\xa0\x80A") == b"\xed\xa0\x80a"


@given(st.binary(max_size=40))
def test_folding_and_lowering_agree_on_any_bytes(name: bytes) -> None:
    assert fold(lower(name)) == fold(name)
    assert fold(fold(name)) == fold(name)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_name_in_capitals_by_simple_mappings_is_the_same_name(text: str) -> None:
    capitals = [c.upper() if folded(c.upper()) == folded(c) else c for c in text]
    assert folded("".join(capitals)) == folded(text)
