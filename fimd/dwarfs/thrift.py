"""The part of the Thrift compact protocol that DwarFS uses, both ways.

Source: thrift/doc/specs/thrift-compact-protocol.md of apache/thrift. DwarFS keeps its schema, its
history and the headers of FLAC and RICEPP blocks in it.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

from fimd.dwarfs.bounds import THRIFT_VALUES
from fimd.dwarfs.errors import DamagedError


class Type(IntEnum):
    """Types on the wire; a struct's field may also carry FALSE, elsewhere a bool is TRUE."""

    TRUE = 1
    FALSE = 2
    BYTE = 3
    I16 = 4
    I32 = 5
    I64 = 6
    DOUBLE = 7
    BINARY = 8
    LIST = 9
    SET = 10
    MAP = 11
    STRUCT = 12


BOOL = Type.TRUE
_INTEGER_BITS = {Type.I16: 16, Type.I32: 32, Type.I64: 64}
_MAX_DEPTH = 16
_DOUBLE = struct.Struct("<d")


class Reader:
    """Decodes values from `data`, never past its end, and never deeper than a real file goes.

    A struct decodes to a dict from field id to value, a map to a dict, a list and a set to a list,
    binary to bytes. Whether a value has the type that its field should have is the caller's check.
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position
        self._left = THRIFT_VALUES

    def varint(self) -> int:
        """An unsigned LEB128 number of up to 64 bits."""
        byte = self.byte()
        value, shift = byte & 0x7F, 7
        while byte >= 0x80:
            if shift > 63:
                raise DamagedError("a Thrift number has more than 64 bits")
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
        if value >> 64:
            raise DamagedError("a Thrift number has more than 64 bits")
        return value

    def integer(self, bits: int) -> int:
        """A signed (zigzag) number that must fit in `bits`."""
        raw = self.varint()
        if raw >> bits:
            raise DamagedError(f"a Thrift number does not fit in {bits} bits")
        return (raw >> 1) ^ -(raw & 1)

    def byte(self) -> int:
        """The next byte."""
        position = self.position
        if position >= len(self.data):
            raise DamagedError("unexpected end of Thrift data")
        self.position = position + 1
        return self.data[position]

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise DamagedError("unexpected end of Thrift data")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """One struct; a field that occurs twice keeps its last value."""
        fields: dict[int, Any] = {}
        last_id = 0
        while header := self.byte():
            wire_type = header & 15
            delta = header >> 4
            last_id = last_id + delta if delta else self.integer(16)
            if wire_type in _BOOLS:
                self._count()
                fields[last_id] = _BOOLS[wire_type]
            else:
                fields[last_id] = self._value(wire_type, depth + 1)
        return fields

    def _value(self, wire_type: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise DamagedError("Thrift data is nested too deeply")
        self._count()
        read = _READERS.get(wire_type)
        if read is None:
            raise DamagedError(f"unknown Thrift type {wire_type}")
        return read(self, depth)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise DamagedError(f"Thrift data holds more than {THRIFT_VALUES} values")

    def _list(self, depth: int) -> list[Any]:
        header = self.byte()
        count = header >> 4 if header >> 4 < 15 else self.varint()
        self._check_count(count)
        return [self._value(header & 15, depth + 1) for _ in range(count)]

    def _map(self, depth: int) -> dict[Any, Any]:
        count = self.varint()
        self._check_count(count)
        types = self.byte() if count else 0
        items: dict[Any, Any] = {}
        for _ in range(count):
            key = self._value(types >> 4, depth + 1)
            if not isinstance(key, int | bytes):
                raise DamagedError("a Thrift map has a key that is no number or string")
            items[key] = self._value(types & 15, depth + 1)
        return items

    def _check_count(self, count: int) -> None:
        # every element takes at least one byte, so a count past this is a lie
        if count > len(self.data) - self.position:
            raise DamagedError(f"a Thrift list of {count} elements does not fit in its data")


_BOOLS: Final = {int(Type.TRUE): True, int(Type.FALSE): False}
# By plain numbers: what a start of an image waits for, and members of an enumeration are slow.
_READERS: Final[dict[int, Callable[[Reader, int], Any]]] = {
    **dict.fromkeys(_BOOLS, lambda reader, _: _BOOLS.get(reader.byte(), False)),
    int(Type.BYTE): lambda reader, _: reader.byte(),
    int(Type.I16): lambda reader, _: reader.integer(16),
    int(Type.I32): lambda reader, _: reader.integer(32),
    int(Type.I64): lambda reader, _: reader.integer(64),
    int(Type.DOUBLE): lambda reader, _: _DOUBLE.unpack(reader.take(8))[0],
    int(Type.BINARY): lambda reader, _: reader.take(reader.varint()),
    int(Type.LIST): Reader._list,  # noqa: SLF001 - its own table
    int(Type.SET): Reader._list,  # noqa: SLF001
    int(Type.MAP): Reader._map,  # noqa: SLF001
    int(Type.STRUCT): Reader.structure,
}

Field = tuple[int, Type, Any]
"""Id, type and value of a struct's field, as `encode_struct` takes them."""


def encode_struct(fields: Iterable[Field]) -> bytes:
    """Encode a struct's fields in the order they are given.

    A value is a bool, int, float or bytes; for LIST and SET `(element type, values)`; for MAP
    `(key type, value type, pairs)`; for STRUCT the fields again. Raises OverflowError where a
    number does not fit its type.
    """
    out = bytearray()
    _encode_fields(out, fields)
    return bytes(out)


def encode_varint(value: int) -> bytes:
    """Encode an unsigned number as LEB128."""
    out = bytearray()
    _encode_varint(out, value)
    return bytes(out)


def _encode_fields(out: bytearray, fields: Iterable[Field]) -> None:
    last_id = 0
    for field_id, wire_type, value in fields:
        header = (Type.TRUE if value else Type.FALSE) if wire_type is BOOL else wire_type
        if 0 < field_id - last_id <= 15:
            out.append((field_id - last_id) << 4 | header)
        else:
            out.append(header)
            _encode_integer(out, field_id, 16)
        last_id = field_id
        if wire_type is not BOOL:
            _encode_value(out, wire_type, value)
    out.append(0)


def _encode_value(out: bytearray, wire_type: Type, value: Any) -> None:
    match wire_type:
        case Type.TRUE | Type.FALSE:
            out.append(Type.TRUE if value else Type.FALSE)
        case Type.BYTE:
            out.append(value & 0xFF)
        case Type.I16 | Type.I32 | Type.I64:
            _encode_integer(out, value, _INTEGER_BITS[wire_type])
        case Type.DOUBLE:
            out += _DOUBLE.pack(value)
        case Type.BINARY:
            _encode_varint(out, len(value))
            out += value
        case Type.LIST | Type.SET:
            _encode_list(out, *value)
        case Type.MAP:
            _encode_map(out, *value)
        case Type.STRUCT:
            _encode_fields(out, value)


def _encode_list(out: bytearray, element_type: Type, values: Sequence[Any]) -> None:
    if len(values) < 15:
        out.append(len(values) << 4 | element_type)
    else:
        out.append(15 << 4 | element_type)
        _encode_varint(out, len(values))
    for value in values:
        _encode_value(out, element_type, value)


def _encode_map(
    out: bytearray, key_type: Type, value_type: Type, pairs: Sequence[tuple[Any, Any]]
) -> None:
    _encode_varint(out, len(pairs))
    if pairs:
        out.append(key_type << 4 | value_type)
    for key, value in pairs:
        _encode_value(out, key_type, key)
        _encode_value(out, value_type, value)


def _encode_varint(out: bytearray, value: int) -> None:
    if value < 0 or value >> 64:
        raise OverflowError(f"{value} is no unsigned number of 64 bits")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _encode_integer(out: bytearray, value: int, bits: int) -> None:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OverflowError(f"{value} does not fit in {bits} bits")
    _encode_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)
