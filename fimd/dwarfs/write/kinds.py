"""What a file holds, by its first bytes: enough to order files, and to choose a filter."""

from enum import IntEnum
from typing import Final

_ELF_X86: Final = frozenset({3, 62})  # e_machine of i386 and x86-64


class Kind(IntEnum):
    """Kinds in the order in which they are stored.

    Machine code alone is kept apart: scripts and what is compiled from them, for one, have so many
    words in common that they compress best side by side.
    """

    X86 = 0  # programs, and static libraries, of whichever processor
    OTHER = 1


def kind_of(start: bytes) -> Kind:
    """The kind of a file that starts with these bytes, of which 20 are enough."""
    is_x86_elf = start.startswith(b"\x7fELF") and int.from_bytes(start[18:20], "little") in _ELF_X86
    return Kind.X86 if is_x86_elf or start.startswith((b"!<arch>\n", b"MZ")) else Kind.OTHER
