"""What a FlatImage's ELF boot program says: where it ends, and where the reserved space is.

Nothing of it is trusted: what does not fit the file, or no sane program has, counts as not said.
"""

import struct
from dataclasses import dataclass
from typing import Final

from .file import read_at, size_of

MAGIC: Final = b"\x7fELF"
RESERVED_SECTION: Final = b".fim_reserved_offset"

# System V ABI, ELF-64. The file header: e_ident, e_shoff, e_ehsize, e_phentsize, e_phnum,
# e_shentsize, e_shnum, e_shstrndx. A section header: sh_name, sh_offset, sh_size.
FILE_HEADER: Final = struct.Struct("<16s24xQ4xHHHHHH")
SECTION_HEADER: Final = struct.Struct("<I20xQQ24x")
IDENT_64_LITTLE: Final = MAGIC + b"\x02\x01"

MOST_SECTIONS: Final = 4096
MOST_NAME_BYTES: Final = 1 << 20
OFFSET: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Program:
    """The boot program: its size in bytes, and the offset that it records (1.x has none)."""

    end: int
    reserved_offset: int | None


def read_program(fd: int) -> Program | None:
    """The ELF program at the start of the file, or None where its headers make no sense."""
    header = read_at(fd, 0, FILE_HEADER.size)
    if len(header) < FILE_HEADER.size:
        return None
    ident, table, ehsize, _, _, entry_size, count, names_index = FILE_HEADER.unpack(header)
    end = table + ehsize * count  # FlatImage's own reckoning: the section headers come last
    if (
        not ident.startswith(IDENT_64_LITTLE)
        or (ehsize, entry_size) != (FILE_HEADER.size, SECTION_HEADER.size)
        or not 0 < count <= MOST_SECTIONS
        or end > size_of(fd)
    ):
        return None
    data = read_at(fd, table, SECTION_HEADER.size * count)
    sections = list(SECTION_HEADER.iter_unpack(data))
    return Program(end, _recorded_offset(fd, sections, names_index))


def _recorded_offset(fd: int, sections: list[tuple[int, int, int]], names: int) -> int | None:
    if names >= len(sections):
        return None
    _, names_offset, names_size = sections[names]
    size = size_of(fd)
    if names_offset > size:
        return None
    text = read_at(fd, names_offset, min(names_size, MOST_NAME_BYTES))
    for name, offset, length in sections:
        if text[name : name + len(RESERVED_SECTION) + 1] != RESERVED_SECTION + b"\0":
            continue
        if length >= OFFSET.size and offset <= size - OFFSET.size:
            recorded: int = OFFSET.unpack(read_at(fd, offset, OFFSET.size))[0]
            return recorded
    return None
