from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimd.dwarfs import Image
from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.frozen import Column, Frozen, Layout, Schema


@given(
    st.integers(1, 40).flatmap(
        lambda width: st.tuples(
            st.just(width), st.lists(st.integers(0, (1 << width) - 1), max_size=70)
        )
    ),
    st.integers(0, 20),
    st.integers(0, 9),
)
def test_a_column_gives_the_same_one_by_one_and_at_once(
    column: tuple[int, list[int]], gap: int, start: int
) -> None:
    width, numbers = column
    stride = width + gap
    packed = sum(number << start + index * stride for index, number in enumerate(numbers))
    data = packed.to_bytes((start + len(numbers) * stride + 7) // 8, "little")
    read = Column(data, start, stride, (1 << width) - 1, len(numbers))
    assert [read[index] for index in range(len(read))] == numbers
    assert list(read.unpack()) == numbers


def test_a_column_of_no_width_is_all_zeros() -> None:
    column = Column(b"", 0, 0, 0, 5)
    assert list(column.unpack()) == [0] * 5 == [column[index] for index in range(5)]


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_of_a_column_is_refused(index: int) -> None:
    with pytest.raises(DamagedError, match="of 3 items"):
        Column(b"abc", 0, 8, 255, 3)[index]


def test_the_worked_example_of_the_format_reads_as_described(images: Path) -> None:
    with Image.open(images / "made/tiny-raw.dwarfs") as image:
        root = image.metadata.root
        chunks, directories = root.items(1), root.items(2)
        assert len(image.metadata.frozen.schema.layouts) == 42
        assert [list(chunks.column(field).unpack()) for field in (1, 2, 3)] == [
            [0, 0],
            [10, 0],
            [15, 10],
        ]
        assert list(directories.column(2).unpack()) == [1, 5, 6]
        assert list(directories.column(3).unpack()) == [0, 3, 0]
        assert list(image.metadata.modes) == [0o40755, 0o100644, 0o100755, 0o120777]
        assert root.integer(12) == 1_700_000_000
        assert root.optional_integer(26) == ord("/")
        assert image.created_by == "libdwarfs v0.15.3-13-ge0465a9353 on branch main"
        assert [image.metadata.names[index] for index in range(5)] == [
            b"a.txt",
            b"b.txt",
            b"bin",
            b"hello",
            b"link",
        ]


def layout(size: int, bits: int, fields: dict[int, tuple[int, int]], *by_byte: int) -> Layout:
    return Layout(size, bits, fields, frozenset(by_byte))


def test_items_that_lie_at_bytes_have_distances_from_their_own_start() -> None:
    """No image seen has such a layout; the format allows it."""
    schema = Schema(
        (
            layout(0, 8, {}),
            layout(2, 0, {1: (0, 0), 2: (0, 8)}, 2),  # a string: distance, count
            layout(2, 0, {1: (0, 0), 2: (0, 8), 3: (1, 0)}, 2),  # a list of them
        ),
        layout(2, 0, {1: (2, 0)}),
    )
    data = bytes([2, 2]) + bytes([4, 3]) + bytes([5, 2]) + b"abc" + b"de"
    assert Frozen(data, schema, 1000).root.items(1).strings() == [b"abc", b"de"]


def test_a_list_longer_than_the_metadata_is_refused() -> None:
    schema = Schema(
        (layout(0, 32, {}), layout(0, 64, {1: (0, 0), 2: (0, 32)})), layout(0, 64, {1: (1, 0)})
    )
    data = (0).to_bytes(4, "little") + (10**9).to_bytes(4, "little")
    with pytest.raises(DamagedError, match="a list of 1000000000 items"):
        Frozen(data, schema, 1000).root.items(1)
