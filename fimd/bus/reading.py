"""Messages from peers: read with limits, since no bus has looked at them before."""

import asyncio
import io
from typing import Any, Final, Literal

from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, SignatureType, Variant

FIXED: Final = 16
"""Bytes of a message that say how long it is."""
_ORDERS: Final[dict[int, Literal["little", "big"]]] = {ord("l"): "little", ord("B"): "big"}
_MOST_VALUES: Final = 400_000
"""In one message: more than the words and variables that a program can be executed with."""
_LONGEST_SIGNATURE: Final = 32
"""Of a variant: each that the library meets it remembers."""
_AT_ONCE: Final = 64 << 10
"""Bytes that are read in no time; more is read beside the event loop."""


class MessageError(Exception):
    """Bytes that are no message."""


def measure(start: bytes) -> tuple[int, int]:
    """Return the length and the serial of the message that begins so. Raises MessageError."""
    order = _ORDERS.get(start[0])
    if order is None:
        raise MessageError("no message begins here")
    body, serial, fields = (int.from_bytes(start[at : at + 4], order) for at in (4, 8, 12))
    if serial == 0:
        raise MessageError("it has no number to be answered by")
    return FIXED + fields + -fields % 8 + body, serial


async def parse(data: bytes) -> Message:
    """Read a whole message. Raises MessageError."""
    try:
        if len(data) <= _AT_ONCE:
            return _parse(data)
        return await asyncio.to_thread(_parse, data)
    except MessageError:
        raise
    except Exception as error:  # the library knows many ways
        raise MessageError(f"it makes no sense ({type(error).__name__})") from error


def _parse(data: bytes) -> Message:
    message: Message | None = _Reader(io.BytesIO(data)).unmarshall()  # type: ignore[no-untyped-call]
    if message is None:
        raise MessageError("it ends too early")
    return message


class _Reader(Unmarshaller):
    """Reads so many values, and no more."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)  # type: ignore[no-untyped-call]
        self._left = _MOST_VALUES

    def read_argument(self, type_: SignatureType) -> Any:
        self._left -= 1
        if self._left < 0:
            raise MessageError(f"it holds more than {_MOST_VALUES} values")
        return super().read_argument(type_)  # type: ignore[no-untyped-call]

    def read_variant(self, _: SignatureType | None = None) -> Variant:
        signature = self.read_signature()  # type: ignore[no-untyped-call]
        if len(signature) > _LONGEST_SIGNATURE:
            raise MessageError("it has a variant of a long type")
        tree = SignatureTree._get(signature)  # noqa: SLF001 - as the library has it
        return Variant(tree, self.read_argument(tree.types[0]))
