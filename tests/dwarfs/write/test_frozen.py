"""What is frozen here thaws in the reader."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimd.dwarfs.frozen import Frozen, parse_schema
from fimd.dwarfs.write.frozen import (
    Numbers,
    Records,
    Some,
    StringSet,
    Struct,
    column,
    encode,
    packed_size,
    width,
)

COLUMNS = st.integers(0, 40).flatmap(
    lambda count: st.dictionaries(
        st.integers(1, 14),
        st.integers(0, 64).flatmap(
            lambda bits: st.lists(st.integers(0, (1 << bits) - 1), min_size=count, max_size=count)
        ),
        min_size=1,
        max_size=5,
    )
)


def thaw(root: Struct, align: int = 1) -> Frozen:
    schema, data = encode(root, align=align)
    assert data.endswith(bytes(8))
    return Frozen(data, parse_schema(schema), 1 << 20)


@given(COLUMNS, st.sampled_from([1, 8]))
def test_records_keep_their_numbers(columns: dict[int, list[int]], align: int) -> None:
    records = Records({key: column(values) for key, values in columns.items()})
    items = thaw(Struct({1: 5, 2: records, 3: True}), align).root.items(2)
    for key, values in columns.items():
        assert items.column(key, 64).unpack().tolist() == values


@given(st.lists(st.integers(0, (1 << 64) - 1)), st.sampled_from([1, 8]))
def test_numbers_keep_their_values(values: list[int], align: int) -> None:
    root = thaw(Struct({1: Numbers(column(values)), 9: Some(Numbers(column(values)))}), align).root
    assert root.items(1).numbers(64).unpack().tolist() == values
    optional = root.optional(9)
    assert optional is not None


def test_more_items_than_are_packed_at_once_stay_in_place() -> None:
    values = np.arange(100_003, dtype=np.uint64)
    items = thaw(Struct({1: Numbers(values)})).root.items(1)
    assert items.numbers().unpack().tolist() == values.tolist()


def test_strings_optionals_and_flags_are_told_apart() -> None:
    root = thaw(
        Struct({1: b"text", 2: Some(Struct({1: False})), 3: False, 4: Some(0), 6: Some(b"")})
    ).root
    assert root.string(1) == b"text"
    assert root.optional(2) is not None
    assert not root.flag(3)
    assert root.optional_integer(4) == 0
    assert root.optional(5) is None
    assert root.optional(6) is not None


def test_a_set_is_sorted() -> None:
    root = thaw(Struct({1: 1, 2: Some(StringSet(frozenset({b"zz", b"a", b"mmm"})))})).root
    strings = root.optional(2)
    assert strings is not None
    assert strings.items(2).strings() == [b"a", b"mmm", b"zz"]


def test_no_layout_gets_more_bits_than_its_type_may_have() -> None:
    schema, _ = encode(Struct({1: Records({1: column([1 << 31, 1 << 33])})}), align=8)
    layouts = parse_schema(schema).layouts
    assert {layout.bits for layout in layouts if not layout.fields} <= {1, 2, 32, 34}


def test_what_is_no_value_of_the_format_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot freeze a float"):
        encode(Struct({1: 1.5}))


def test_the_packed_size_is_that_of_the_widest_number() -> None:
    assert width(column([])) == 0
    assert packed_size(column([0, 0])) == 0
    assert packed_size(column([7, 0, 1])) == 2
