import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.thrift import Field, Reader, Type, encode_struct, encode_varint

VALUES: list[tuple[Type, st.SearchStrategy[Any]]] = [
    (Type.TRUE, st.booleans()),
    (Type.BYTE, st.integers(0, 255)),
    (Type.I16, st.integers(-(2**15), 2**15 - 1)),
    (Type.I32, st.integers(-(2**31), 2**31 - 1)),
    (Type.I64, st.integers(-(2**63), 2**63 - 1)),
    (Type.DOUBLE, st.floats(allow_nan=False)),
    (Type.BINARY, st.binary(max_size=300)),
]


@given(st.data())
def test_what_is_encoded_is_decoded(data: st.DataObject) -> None:
    fields: list[Field] = []
    expected: dict[int, Any] = {}
    for field_id in data.draw(st.lists(st.integers(1, 2**15 - 1), unique=True, max_size=20)):
        wire_type, values = data.draw(st.sampled_from(VALUES))
        match data.draw(st.sampled_from(["one", "list", "map", "struct"])):
            case "one":
                value = expected[field_id] = data.draw(values)
                fields.append((field_id, wire_type, value))
            case "list":
                value = expected[field_id] = data.draw(st.lists(values, max_size=40))
                fields.append((field_id, Type.LIST, (wire_type, value)))
            case "map":
                value = expected[field_id] = data.draw(
                    st.dictionaries(st.integers(0, 2**15 - 1), values, max_size=40)
                )
                pairs = list(value.items())
                fields.append((field_id, Type.MAP, (Type.I16, wire_type, pairs)))
            case "struct":
                value = data.draw(values)
                expected[field_id] = {7: value}
                fields.append((field_id, Type.STRUCT, [(7, wire_type, value)]))
    encoded = encode_struct(fields)
    reader = Reader(encoded)
    assert reader.structure() == expected
    assert reader.position == len(encoded)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(DamagedError):
        Reader(data).structure()


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_decoded_at_its_position(value: int) -> None:
    assert Reader(b"\xff" + encode_varint(value), 1).varint() == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" * 11,
        b"\xff" * 9 + b"\x02",  # 65 bits
        b"\x80",
    ],
)
def test_a_number_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        Reader(data).varint()


@pytest.mark.parametrize(
    "data",
    [
        b"\x19\xf3\xff\xff\xff\xff\x0f",  # a list of four thousand million bytes
        b"\x1b\xff\xff\xff\xff\x0f\x33",  # a map of as many
        b"\x18\xff\xff\xff\xff\x0f",  # a string
        b"\x1c" * 100,  # structs in structs
        b"\x19\x19" * 100,  # lists in lists
        b"\x10",  # no type
        b"\x14\x80\x80\x04\x00",  # an i16 of 17 bits
    ],
)
def test_lies_about_sizes_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        Reader(data).structure()


def test_a_number_too_large_for_its_type_is_not_encoded() -> None:
    with pytest.raises(OverflowError):
        encode_struct([(1, Type.I16, 2**15)])
