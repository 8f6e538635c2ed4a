"""What a file holds, by its first bytes: enough to order files, and to choose a filter."""

from enum import IntEnum
from typing import Final

_SNIFFED: Final = 512
_ELF_X86: Final = frozenset({3, 62})  # e_machine of i386 and x86-64
_CONTROL: Final = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))


class Kind(IntEnum):
    """Kinds in the order in which they are stored."""

    X86 = 0  # machine code, programs and static libraries
    OTHER = 1
    TEXT = 2


def kind_of(start: bytes) -> Kind:
    """The kind of a file that starts with these bytes."""
    if start.startswith(b"\x7fELF"):
        return Kind.X86 if int.from_bytes(start[18:20], "little") in _ELF_X86 else Kind.OTHER
    if start.startswith((b"!<arch>\n", b"MZ")):
        return Kind.X86
    head = start[:_SNIFFED]
    return Kind.TEXT if len(head.translate(None, _CONTROL)) == len(head) else Kind.OTHER
