"""Frozen2, the writing side: a struct's values become a schema and one bit-packed payload.

Source: fbthrift's FrozenCompact layouts as DwarFS uses them; `fimd.dwarfs.frozen` is the reader.
Every struct is a run of bit fields, each as wide as its largest value needs. Only the root has a
size in bytes, and every distance counts from the start of the payload.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fimd.dwarfs.thrift import BOOL, Type, encode_struct

Column = npt.NDArray[np.uint64]

_FILE_VERSION: Final = 1
_DISTANCE_BITS: Final = 32
_PADDING: Final = bytes(8)  # readers load whole words and may touch seven bytes past a field
_BATCH: Final = 1 << 14  # list items packed at once; a multiple of 8, so that batches end on bytes
_NO_LAYOUT: Final = -1


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of unsigned integers."""

    values: Column


@dataclass(frozen=True, slots=True)
class Records:
    """A list of structs that hold unsigned integers only: one column for each field id."""

    columns: Mapping[int, Column]


@dataclass(frozen=True, slots=True)
class StringSet:
    """A set of strings."""

    values: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Some:
    """An optional that is set, even where its value needs no bits."""

    value: Any


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct by field id: each value an int, bool, bytes or one of this module's classes."""

    fields: Mapping[int, Any]


def encode(root: Struct, *, align: int = 1) -> tuple[bytes, bytes]:
    """The payloads of METADATA_V2_SCHEMA and METADATA_V2.

    `align` rounds the fields of list items up to so many bits: 8 takes more room than 1, but a
    compressor finds more in it.
    """
    encoder = _Encoder(align)
    bits = _Bits()
    layout = encoder.members(root, bits)
    size = -(-bits.count // 8)
    root_number = encoder.layout(size, bits.count, layout)
    return encoder.schema(root_number), bits.pack(size) + bytes(encoder.data) + _PADDING


def column(values: Iterable[int]) -> Column:
    """Integers as a column."""
    return np.fromiter(values, np.uint64)


def width(values: Column) -> int:
    """Bits that the largest of the values needs."""
    return int(values.max()).bit_length() if len(values) else 0


def packed_size(values: Column) -> int:
    """Bytes that a list of these numbers takes, unaligned."""
    return -(-len(values) * width(values) // 8)


@dataclass(slots=True)
class _Bits:
    """The root's bits, in which distances wait until the root's own size is known."""

    number: int = 0
    count: int = 0
    distances: list[tuple[int, int]] = field(default_factory=list)

    def append(self, value: int, bit_count: int) -> None:
        self.number |= value << self.count
        self.count += bit_count

    def append_distance(self, position: int) -> None:
        self.distances.append((self.count, position))
        self.count += _DISTANCE_BITS

    def pack(self, size: int) -> bytes:
        for bit, position in self.distances:
            if (size + position) >> _DISTANCE_BITS:
                raise OverflowError("the metadata would be larger than 4 GiB")
            self.number |= (size + position) << bit
        return self.number.to_bytes(size, "little")


_Fields = tuple[tuple[int, int, int], ...]
"""A layout's fields as (field id, layout number, bit offset)."""


@dataclass(slots=True)
class _Encoder:
    align: int
    data: bytearray = field(default_factory=bytearray)
    layouts: dict[tuple[int, int, _Fields], int] = field(default_factory=dict)

    def layout(self, size: int, bits: int, fields: _Fields = ()) -> int:
        """The number of such a layout, the same for equal ones."""
        return self.layouts.setdefault((size, bits, fields), len(self.layouts))

    def members(self, struct: Struct, bits: _Bits) -> _Fields:
        """Lay out a struct's members one after the other; those that need no bits are left out."""
        start = bits.count
        fields = []
        for field_id, member in struct.fields.items():
            offset = bits.count - start
            number = self._value(member, bits)
            if number != _NO_LAYOUT:
                fields.append((field_id, number, offset))
        return tuple(fields)

    def schema(self, root: int) -> bytes:
        layouts = [
            (
                number,
                (
                    (1, Type.I32, size),
                    (2, Type.I16, bits),
                    (3, Type.MAP, (Type.I16, Type.STRUCT, _schema_fields(fields))),
                    (4, Type.BINARY, b""),
                ),
            )
            for (size, bits, fields), number in self.layouts.items()
        ]
        return encode_struct(
            [
                (1, BOOL, True),
                (2, Type.MAP, (Type.I16, Type.STRUCT, layouts)),
                (3, Type.I16, root),
                (4, Type.I32, _FILE_VERSION),
            ]
        )

    def _value(self, value: Any, bits: _Bits) -> int:
        """Append a value's bits, and its data; return its layout, or that it needs none."""
        start = bits.count
        fields: _Fields
        match value:
            case int():  # a bool too
                bits.append(int(value), int(value).bit_length())
                fields = ()
            case bytes():
                fields = self._list(len(value), value, _NO_LAYOUT, bits)
            case Numbers(values):
                item_bits = self._aligned(width(values))
                item = self.layout(0, item_bits) if item_bits else _NO_LAYOUT
                fields = self._list(len(values), _pack([(values, item_bits)]), item, bits)
            case Records(columns):
                fields = self._records(columns, bits)
            case StringSet(values):
                fields = self._strings(sorted(values), bits)
            case Some(inner):
                bits.append(1, 1)
                fields = ((1, self.layout(0, 1), 0),)
                number = self._value(inner, bits)
                if number != _NO_LAYOUT:
                    fields += ((2, number, 1),)
            case Struct():
                fields = self.members(value, bits)
            case _:
                raise TypeError(f"cannot freeze a {type(value).__name__}")
        used = bits.count - start
        return self.layout(0, used, fields) if used else _NO_LAYOUT

    def _records(self, columns: Mapping[int, Column], bits: _Bits) -> _Fields:
        fields, packed, offset = [], [], 0
        for field_id, values in columns.items():
            field_bits = self._aligned(width(values))
            if field_bits:
                fields.append((field_id, self.layout(0, field_bits), offset))
                packed.append((values, field_bits))
                offset += field_bits
        count = len(next(iter(columns.values())))
        item = self.layout(0, offset, tuple(fields)) if offset else _NO_LAYOUT
        return self._list(count, _pack(packed), item, bits)

    def _strings(self, values: list[bytes], bits: _Bits) -> _Fields:
        """A list of strings: each item's distance counts from where the items begin."""
        count_bits = max((len(value).bit_length() for value in values), default=0)
        item_bits = _DISTANCE_BITS + count_bits
        items, place = 0, -(-item_bits * len(values) // 8)
        for index, value in enumerate(values):
            items |= (place | len(value) << _DISTANCE_BITS) << index * item_bits
            place += len(value)
        data = items.to_bytes(-(-item_bits * len(values) // 8), "little") + b"".join(values)
        item_fields = (
            (1, self.layout(0, _DISTANCE_BITS), 0),
            (2, self.layout(0, count_bits), _DISTANCE_BITS),
        )
        item = self.layout(0, item_bits, item_fields) if values else _NO_LAYOUT
        return self._list(len(values), data, item, bits)

    def _list(self, count: int, data: bytes, item: int, bits: _Bits) -> _Fields:
        """A list or a string: its count, its data's distance, and its items' layout."""
        if not count:
            return ()
        start = bits.count
        bits.append(count, count.bit_length())
        fields: _Fields = ((2, self.layout(0, count.bit_length()), 0),)
        if data:
            fields = ((1, self.layout(0, _DISTANCE_BITS), bits.count - start), *fields)
            bits.append_distance(len(self.data))
            self.data += data
        if item != _NO_LAYOUT:
            fields += ((3, item, 0),)
        return fields

    def _aligned(self, bits: int) -> int:
        rounded = -(-bits // self.align) * self.align
        return rounded if rounded <= 32 else bits  # no type of 32 bits may get more


def _schema_fields(fields: _Fields) -> list[tuple[int, Any]]:
    return [
        (field_id, ((1, Type.I16, number), (2, Type.I16, -offset)))
        for field_id, number, offset in fields
    ]


def _pack(columns: list[tuple[Column, int]]) -> bytes:
    """Rows of bit fields back to back, least significant bit first."""
    if not columns:
        return b""
    count = len(columns[0][0])
    batches = []
    for first in range(0, count, _BATCH):
        bits = [
            np.unpackbits(
                np.ascontiguousarray(values[first : first + _BATCH], "<u8")
                .view(np.uint8)
                .reshape(-1, 8),
                axis=1,
                bitorder="little",
            )[:, :bit_count]
            for values, bit_count in columns
        ]
        batches.append(np.packbits(np.hstack(bits), bitorder="little").tobytes())
    return b"".join(batches)
