"""As much of DwarFS as it takes to tell where a layer begins and ends.

A DwarFS image is a row of sections without padding. From format 2.2 on each has a 64-byte header
(doc/dwarfs-format.md of mhx/dwarfs); before that, 8 bytes after an 8-byte file header. Contents and
checksums are the concern of whoever mounts the layer.
"""

import struct
from dataclasses import dataclass
from typing import Final

from .file import read_at

MAGIC: Final = b"DWARFS"
MAJOR: Final = 2
FIRST_MINOR_WITH_LONG_HEADERS: Final = 2

# magic, major, minor, SHA-512/256 and XXH3-64 (skipped), number, type, compression, payload length
HEADER: Final = struct.Struct("<6sBB40xIHHQ")
# type, compression, payload length
SHORT_HEADER: Final = struct.Struct("<HBxI")
SHORT_FILE_HEADER_SIZE: Final = 8

METADATA: Final = 8
INDEX: Final = 9
INDEX_ENTRY: Final = struct.Struct("<Q")  # section type in the upper 16 bits, offset in the lower

# More sections than any real layer has (128 KiB blocks would make it a layer of 25 GB).
MOST_SECTIONS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Section:
    """A section's header."""

    minor: int
    number: int
    type: int
    compression: int
    length: int

    @property
    def size(self) -> int:
        """Bytes of header and payload."""
        return HEADER.size + self.length


def parse_section(data: bytes) -> Section | None:
    """The header in `data`, or None where it is none of DwarFS 2."""
    if len(data) < HEADER.size:
        return None
    magic, major, minor, number, type_, compression, length = HEADER.unpack_from(data)
    if magic != MAGIC or major != MAJOR:
        return None
    return Section(minor, number, type_, compression, length)


def read_section(fd: int, offset: int, end: int) -> Section | None:
    """The section at `offset`, or None where there is none, or it does not end by `end`."""
    section = parse_section(read_at(fd, offset, HEADER.size))
    return section if section is not None and offset + section.size <= end else None


def starts_layer(fd: int, offset: int, end: int) -> bool:
    """Whether a DwarFS image seems to begin at `offset`, and its first section ends by `end`."""
    data = read_at(fd, offset, HEADER.size)
    if len(data) <= SHORT_FILE_HEADER_SIZE or data[:7] != MAGIC + bytes([MAJOR]):
        return False
    if data[7] < FIRST_MINOR_WITH_LONG_HEADERS:
        return end - offset > SHORT_FILE_HEADER_SIZE + SHORT_HEADER.size
    section = parse_section(data)
    return section is not None and offset + section.size <= end


def is_whole(fd: int, offset: int, size: int, most_sections: int = MOST_SECTIONS) -> bool:
    """Whether exactly the `size` bytes at `offset` are a DwarFS image, by its own account."""
    if index_ends_at(fd, offset, size):
        return True
    return measure(fd, offset, offset + size, most_sections) == size


def index_ends_at(fd: int, offset: int, size: int) -> bool:
    """Whether the layer has a section index that ends where the layer does (format 2.4)."""
    first = read_section(fd, offset, offset + size)
    if first is None or first.number != 0:
        return False
    second = read_section(fd, offset + first.size, offset + size)
    if second is None or second.number != 1:
        return False
    last = read_at(fd, offset + size - INDEX_ENTRY.size, INDEX_ENTRY.size)
    entry: int = INDEX_ENTRY.unpack(last)[0]
    if entry >> 48 != INDEX:
        return False
    position = entry & ((1 << 48) - 1)
    index = read_section(fd, offset + position, offset + size)
    return index is not None and index.type == INDEX and position + index.size == size


def measure(fd: int, offset: int, end: int, most_sections: int = MOST_SECTIONS) -> int | None:
    """The size of the complete DwarFS image at `offset`, found by walking its sections.

    None where there is none, where it has no metadata, or where it does not end by `end`.
    """
    first = read_at(fd, offset, SHORT_FILE_HEADER_SIZE)
    if len(first) < SHORT_FILE_HEADER_SIZE or first[:7] != MAGIC + bytes([MAJOR]):
        return None
    if first[7] < FIRST_MINOR_WITH_LONG_HEADERS:
        return _measure_short(fd, offset, end)
    position, complete = offset, False
    for number in range(most_sections):
        section = read_section(fd, position, end)
        if section is None or section.number != number:
            break
        position += section.size
        complete = complete or section.type == METADATA
        if section.type == INDEX:
            break
    return position - offset if complete else None


def _measure_short(fd: int, offset: int, end: int) -> int | None:
    # mkdwarfs wrote blocks, schema, metadata; nothing marks the end but the metadata.
    position = offset + SHORT_FILE_HEADER_SIZE
    for _ in range(MOST_SECTIONS):
        data = read_at(fd, position, SHORT_HEADER.size)
        if len(data) < SHORT_HEADER.size:
            return None
        type_: int
        length: int
        type_, _compression, length = SHORT_HEADER.unpack(data)
        position += SHORT_HEADER.size + length
        if position > end or type_ > METADATA:
            return None
        if type_ == METADATA:
            return position - offset
    return None
