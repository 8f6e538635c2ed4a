"""D-Bus messages as bytes: the section "Message Protocol" of the D-Bus specification.

In Python a variant is a pair of signature and value, `ay` is bytes, a dictionary is a dict and a
structure is a tuple. The standard library's `typing` alone takes longer to import than all of the
client on the path of a start, so nothing is imported here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final, Literal

    _Order = Literal["little", "big"]

METHOD_CALL: Final = 1
METHOD_RETURN: Final = 2
ERROR: Final = 3
SIGNAL: Final = 4

PATH: Final = 1
INTERFACE: Final = 2
MEMBER: Final = 3
ERROR_NAME: Final = 4
REPLY_SERIAL: Final = 5
DESTINATION: Final = 6
SENDER: Final = 7
SIGNATURE: Final = 8

FIXED: Final = 16
"""Bytes of a message that say how long it is."""
LARGEST: Final = 128 << 20
"""Bytes of the longest message that the specification allows."""

_FIELD_TYPES: Final = {PATH: "o", INTERFACE: "s", MEMBER: "s", DESTINATION: "s", SIGNATURE: "g"}
_UNSIGNED: Final = {"y": 1, "q": 2, "u": 4, "t": 8, "b": 4, "h": 4}
_SIGNED: Final = {"n": 2, "i": 4, "x": 8}
_SIZES: Final = {**_UNSIGNED, **_SIGNED, "d": 8}
_ALIGNMENTS: Final = {**_SIZES, "s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "(": 8, "{": 8}
_DEPTH: Final = 64


class WireError(ValueError):
    """Bytes that are no message, or a value that does not have its type."""


class Message:
    """A message that was received; `fields` by the numbers above."""

    def __init__(self, kind: int, fields: dict[int, Any], body: tuple[Any, ...]) -> None:
        self.kind = kind
        self.fields = fields
        self.body = body


def call(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    body: Sequence[Any] = (),
) -> bytes:
    """Return the bytes of a method call."""
    fields = {
        PATH: path,
        INTERFACE: interface,
        MEMBER: member,
        DESTINATION: destination,
        **({SIGNATURE: signature} if signature else {}),
    }
    content = bytearray()
    for kind, value in zip(_split(signature), body, strict=True):
        _write(content, kind, value)
    message = bytearray((ord("l"), METHOD_CALL, 0, 1))
    for number in (len(content), serial):
        _write(message, "u", number)
    described = [(code, (_FIELD_TYPES[code], value)) for code, value in fields.items()]
    _write(message, "a(yv)", described)
    _pad(message, 8)
    return bytes(message + content)


def length(start: bytes) -> int:
    """Return how long the message is that begins with these FIXED bytes."""
    order = _order(start)
    body, fields = (int.from_bytes(start[at : at + 4], order) for at in (4, 12))
    total = FIXED + fields + -fields % 8 + body
    if total > LARGEST:
        raise WireError(f"a message of {total} bytes")
    return total


def parse(data: bytes) -> Message:
    """Read a whole message."""
    order = _order(data)
    try:
        header = _Reader(data, order, 12)
        fields = {code: value for code, (_, value) in header.read("a(yv)")}
        header.align(8)
        body = _Reader(data[header.position :], order)
        values = tuple(body.read(kind) for kind in _split(fields.get(SIGNATURE, "")))
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise WireError(f"a message that makes no sense ({error!r})") from error
    return Message(data[1], fields, values)


def _order(start: bytes) -> _Order:
    if start[:1] == b"l":
        return "little"
    if start[:1] == b"B":
        return "big"
    raise WireError("no message begins here")


def _end(signature: str, start: int, depth: int = 0) -> int:
    """Return where the complete type ends that begins at an index."""
    if depth > _DEPTH or start >= len(signature):
        raise WireError(f"the signature {signature!r}")
    kind = signature[start]
    if kind == "a":
        return _end(signature, start + 1, depth + 1)
    if kind not in "({":
        return start + 1
    position = start + 1
    while signature[position : position + 1] not in {")", "}"}:
        position = _end(signature, position, depth + 1)
    return position + 1


def _split(signature: str) -> list[str]:
    """Return the complete types of a signature."""
    found, position = [], 0
    while position < len(signature):
        end = _end(signature, position)
        found.append(signature[position:end])
        position = end
    return found


def _pad(out: bytearray, alignment: int) -> None:
    out += bytes(-len(out) % alignment)


def _write(out: bytearray, kind: str, value: Any) -> None:
    first = kind[0]
    if first not in _ALIGNMENTS:
        raise WireError(f"the type {kind!r}")
    _pad(out, _ALIGNMENTS[first])
    if first in _UNSIGNED:
        out += int(value).to_bytes(_UNSIGNED[first], "little")
    elif first in _SIGNED:
        out += value.to_bytes(_SIGNED[first], "little", signed=True)
    elif first == "d":
        from struct import pack  # noqa: PLC0415 - a start sends none

        out += pack("<d", value)
    elif first in "so":
        text = value.encode()
        out += len(text).to_bytes(4, "little") + text + b"\0"
    elif first == "g":
        out += bytes((len(value),)) + value.encode() + b"\0"
    elif first == "v":
        signature, content = value
        _write(out, "g", signature)
        _write(out, signature, content)
    elif first == "a":
        _write_array(out, kind[1:], value)
    else:
        for part, item in zip(_split(kind[1:-1]), value, strict=True):
            _write(out, part, item)


def _write_array(out: bytearray, kind: str, values: Any) -> None:
    place = len(out)
    out += bytes(4)
    _pad(out, _ALIGNMENTS[kind[0]])
    start = len(out)
    if kind == "y":
        out += values
    else:
        for value in values.items() if kind[0] == "{" else values:
            _write(out, kind, value)
    out[place : place + 4] = (len(out) - start).to_bytes(4, "little")


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: bytes, order: _Order, position: int = 0) -> None:
        self.position = position
        self._data = data
        self._order = order

    def align(self, alignment: int) -> None:
        self.position += -self.position % alignment

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise WireError("a message that ends too early")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def read(self, kind: str, depth: int = 0) -> Any:
        """Read one value of a complete type."""
        if depth > _DEPTH:
            raise WireError("a message with too many levels")
        first = kind[0]
        self.align(_ALIGNMENTS[first])
        if first in _UNSIGNED:
            number = int.from_bytes(self._take(_UNSIGNED[first]), self._order)
            return bool(number) if first == "b" else number
        if first in _SIGNED:
            return int.from_bytes(self._take(_SIGNED[first]), self._order, signed=True)
        if first == "d":
            from struct import unpack  # noqa: PLC0415 - a start gets none

            return unpack("<d" if self._order == "little" else ">d", self._take(8))[0]
        if first in "so":
            return self._take(self.read("u") + 1)[:-1].decode()
        if first == "g":
            return self._take(self._take(1)[0] + 1)[:-1].decode()
        if first == "v":
            signature = self.read("g")
            if _end(signature, 0) != len(signature):
                raise WireError(f"a variant of {signature!r}")
            return signature, self.read(signature, depth + 1)
        if first == "a":
            return self._array(kind[1:], depth + 1)
        return tuple(self.read(part, depth + 1) for part in _split(kind[1:-1]))

    def _array(self, kind: str, depth: int) -> Any:
        size = self.read("u")
        self.align(_ALIGNMENTS[kind[0]])
        if kind == "y":
            return self._take(size)
        end = self.position + size
        values = []
        while self.position < end:
            values.append(self.read(kind, depth))
        return dict(values) if kind[0] == "{" else values
