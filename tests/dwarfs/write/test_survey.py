"""Equal contents are found, and contents are put in an order that compresses well."""

import random
from collections.abc import Generator

import pytest

from fimd.dwarfs.write import Entry, Piece
from fimd.dwarfs.write.entries import PackError
from fimd.dwarfs.write.kinds import Kind, kind_of
from fimd.dwarfs.write.levels import Order
from fimd.dwarfs.write.survey import Survey, survey
from fimd.dwarfs.write.tree import build
from tests.dwarfs.write.trees import Made


def look(made: Made, order: Order, seen: list[bytes] | None = None) -> Survey:
    def read(entry: Entry) -> Generator[Piece]:
        if seen is not None:
            seen.append(entry.path)
        return made.read(entry)

    return survey(build(made.entries), read, order, lambda _: None)


def names(found: Survey) -> list[bytes]:
    return [found.entries[number].path for number in found.order]


def text(seed: int, size: int = 9000) -> bytes:
    rng = random.Random(seed)
    return b" ".join(b"%d" % rng.randrange(10**9) for _ in range(size // 10))


def test_files_of_equal_content_have_one(made_files: Made) -> None:
    found = look(made_files, Order.PATH)
    contents = dict(
        zip(sorted(entry.path for entry in made_files.entries), found.of_inode, strict=True)
    )
    assert contents[b""] == -1
    assert contents[b"a"] == contents[b"c"]
    assert contents[b"empty"] == contents[b"empty too"]
    assert len({contents[name] for name in (b"a", b"b", b"other size", b"empty")}) == 4


@pytest.fixture
def made_files() -> Made:
    made = Made()
    for name, content in {
        b"a": b"xyz",
        b"b": b"xyy",
        b"c": b"xyz",
        b"other size": b"xyzz",
        b"empty": b"",
        b"empty too": b"",
    }.items():
        made.file(name, content)
    return made


def test_only_files_of_equal_size_are_read_where_the_order_is_by_path(made_files: Made) -> None:
    seen: list[bytes] = []
    found = look(made_files, Order.PATH, seen)
    assert sorted(seen) == [b"a", b"b", b"c"]
    assert names(found) == [b"a", b"b", b"empty", b"other size"]


def test_zeros_and_a_hole_are_not_taken_for_one_another() -> None:
    made = Made()
    made.file(b"hole", b"x", 1 << 20)
    made.file(b"same hole", b"x", 1 << 20)
    made.file(b"earlier hole", 1 << 20, b"x")
    made.file(b"zeros", b"x" + bytes(1 << 20))
    found = look(made, Order.PATH)
    assert len(found.entries) == 3


def test_what_is_alike_comes_together_and_the_rest_stays_in_path_order() -> None:
    made = Made()
    for number in range(9):
        made.file(b"%d" % number, text(number))
    made.file(b"z", text(3)[:-500] + b"a little different")
    order = names(look(made, Order.SIMILARITY))
    assert order == [b"0", b"1", b"2", b"3", b"z", *(b"%d" % number for number in range(4, 9))]


def test_machine_code_comes_first() -> None:
    made = Made()
    made.file(b"a", text(1))
    made.file(b"b", b"\x7fELF" + bytes(14) + b"\x3e\0" + text(2))
    assert names(look(made, Order.SIMILARITY)) == [b"b", b"a"]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x7fELF" + bytes(14) + b"\x3e\0", Kind.X86),
        (b"\x7fELF" + bytes(14) + b"\x03\0", Kind.X86),
        (b"\x7fELF" + bytes(14) + b"\xb7\0", Kind.OTHER),  # AArch64
        (b"\x7fELF", Kind.OTHER),
        (b"!<arch>\n", Kind.X86),
        (b"#!/bin/sh", Kind.OTHER),
        (b"", Kind.OTHER),
    ],
)
def test_a_kind_is_told_by_the_first_bytes(start: bytes, kind: Kind) -> None:
    assert kind_of(start) is kind


@pytest.mark.parametrize("size", [2, 4])
def test_a_file_that_is_not_as_long_as_it_says_is_an_error(size: int) -> None:
    made = Made()
    made.file(b"a", b"abc")
    made.entries.append(Entry(b"b", 0o100644, size=3, source=(b"x" * size,)))
    with pytest.raises(PackError, match="b: changed its size"):
        look(made, Order.PATH)
