"""The sections of an image: their headers, where they are, and whether they are intact.

An image is sections end to end. From format 2.4 its last section may be an index of the others, so
that opening needs not visit each header. Images before 2.2 have short headers without checksums.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from fimd.dwarfs.errors import DamagedError, DwarfsError, NotAnImageError, UnsupportedError
from fimd.dwarfs.format import (
    MAGIC,
    MAJOR,
    NEWEST_MINOR,
    SECTION_HEADER,
    SHA_COVERS_FROM,
    WRITTEN_MINOR,
    XXH_COVERS_FROM,
    Compression,
    SectionType,
)
from fimd.dwarfs.source import Source

MAX_SECTIONS: Final = 1 << 20  # what one image may make the reader visit
_FILE_MAGIC: Final = MAGIC + bytes([MAJOR])
_V1_FILE_HEADER_SIZE: Final = 8
_V1_HEADER: Final = struct.Struct("<HBxI")  # type, compression, unused, length
_CHECKED_FIELDS: Final = struct.Struct("<IHHQ")  # what the XXH3 covers of the header
_FIRST_MINOR_WITH_V2_HEADERS: Final = 2
_FIRST_MINOR_WITH_INDEX: Final = 4
_SCAN_WINDOW: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What a section's header says; `sha` and `xxh` are None in images before 2.2."""

    type: int
    compression: int
    length: int
    sha: bytes | None = None
    xxh: int | None = None
    checked_fields: bytes = b""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section is: `offset` of its header in the file, `size` with the header, in bytes."""

    number: int
    type: int
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The type's name in the format's description."""
        return type_name(self.type)


@dataclass(frozen=True, slots=True)
class SectionTable:
    """The sections of an image in file order, and the format's minor version."""

    minor: int
    sections: tuple[Section, ...]
    indexed: bool

    @property
    def header_size(self) -> int:
        """Bytes of each section's header."""
        return SECTION_HEADER.size if self.has_checksums else _V1_HEADER.size

    @property
    def has_checksums(self) -> bool:
        """Whether headers carry XXH3 and SHA-512/256."""
        return self.minor >= _FIRST_MINOR_WITH_V2_HEADERS


def type_name(number: int) -> str:
    """The name of a section type, or its number where it is unknown."""
    try:
        return SectionType(number).name
    except ValueError:
        return f"unknown type {number}"


def pack_section(
    number: int, section_type: int, compression: int, payload: bytes | memoryview
) -> bytes:
    """The 64-byte header of the section that holds `payload`, with both checksums."""
    from xxhash import xxh3_64  # noqa: PLC0415 - a fingerprint needs no xxhash

    fields = _CHECKED_FIELDS.pack(number, section_type, compression, len(payload))
    xxh = xxh3_64(fields)
    xxh.update(payload)
    checked = xxh.intdigest().to_bytes(8, "little") + fields
    sha = hashlib.new("sha512_256", checked)
    sha.update(payload)
    return _FILE_MAGIC + bytes([WRITTEN_MINOR]) + sha.digest() + checked


def find_image(source: Source) -> int:
    """The offset in the file of the first image at or after the source's start.

    What makes a candidate an image: its first header is sensible and a second one follows it.
    Raises NotAnImageError where there is none.
    """
    tail = len(_FILE_MAGIC) - 1
    position = _next_data(source, source.offset)
    while position + len(_FILE_MAGIC) <= source.end:
        window = source.read(position, min(_SCAN_WINDOW + tail, source.end - position))
        found = window.find(_FILE_MAGIC)
        while found >= 0:
            if _starts_image(source, position + found):
                return position + found
            found = window.find(_FILE_MAGIC, found + len(_FILE_MAGIC))
        position = _next_data(source, position + _SCAN_WINDOW)
    raise NotAnImageError("no DwarFS image found", path=source.name)


def read_table(source: Source) -> SectionTable:
    """Where every section is, by the index where it can be used, else from header to header."""
    minor = _read_version(source)
    if minor >= _FIRST_MINOR_WITH_INDEX:
        indexed = _read_index(source, minor)
        if indexed is not None:
            return SectionTable(minor, indexed, indexed=True)
    return SectionTable(minor, tuple(section for section, _ in _walk(source, minor)), indexed=False)


def read_header(source: Source, table: SectionTable, section: Section) -> Header:
    """The section's header, checked against where the table says that the section is."""
    header = _parse_header(
        source.read(section.offset, table.header_size), source, section.number, section.offset
    )
    _check_place(header, table, section, source)
    return header


def load(source: Source, table: SectionTable, section: Section) -> tuple[Header, memoryview]:
    """A section's header and payload, after its XXH3 has been found right."""
    data = source.read(section.offset, section.size)
    header_size = table.header_size
    header = _parse_header(data[:header_size], source, section.number, section.offset)
    _check_place(header, table, section, source)
    if header.xxh is not None and _xxh3(memoryview(data)[XXH_COVERS_FROM:]) != header.xxh:
        raise DamagedError(
            "checksum error: the XXH3-64 of the content is not the header's",
            path=source.name,
            offset=section.offset,
            section=section.name,
        )
    return header, memoryview(data)[header_size:]


def check_digest(source: Source, table: SectionTable, section: Section) -> None:
    """Compare the section's SHA-512/256 and XXH3 with its header, reading a little at a time."""
    from xxhash import xxh3_64  # noqa: PLC0415

    header = read_header(source, table, section)
    if header.sha is None:
        return
    sha, xxh = hashlib.new("sha512_256"), xxh3_64()
    position, end = section.offset + SHA_COVERS_FROM, section.offset + section.size
    covered_before_xxh = XXH_COVERS_FROM - SHA_COVERS_FROM
    skip = covered_before_xxh
    while position < end:
        data = source.read(position, min(1 << 20, end - position))
        sha.update(data)
        xxh.update(memoryview(data)[skip:])
        skip = 0
        position += len(data)
    wrong = [
        name
        for name, right in (
            ("XXH3-64", xxh.intdigest() == header.xxh),
            ("SHA-512/256", sha.digest() == header.sha),
        )
        if not right
    ]
    if wrong:
        raise DamagedError(
            f"integrity check error: the {' and the '.join(wrong)} of the content"
            " is not the header's",
            path=source.name,
            offset=section.offset,
            section=section.name,
        )


def fingerprint(fd: int, offset: int = 0, size: int | None = None) -> bytes:
    """16 bytes that are equal for images of equal content, from the section headers alone.

    Each header holds the SHA-512/256 of its content, so equal fingerprints mean equal content
    unless someone has forged headers: who acts on equality verifies the image first. Images before
    2.2 have no checksums; their fingerprint names the file's identity instead. Raises DwarfsError
    where there is no sound chain of headers from `offset` to the end of the image.
    """
    source = Source.open(fd, offset, size)
    try:
        minor = _read_version(source)
        digest = blake2b(digest_size=16, person=b"fimd.dwarfs")
        for section, raw in _walk(source, minor):
            digest.update(raw)
            digest.update(section.size.to_bytes(8, "little"))
        if minor < _FIRST_MINOR_WITH_V2_HEADERS:
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino, status.st_mtime_ns, offset)
            digest.update(repr(identity).encode())
        return digest.digest()
    finally:
        source.close()


def _next_data(source: Source, position: int) -> int:
    """Skip a hole of a sparse file."""
    if position >= source.end:
        return source.end
    try:
        return os.lseek(source.fd, position, os.SEEK_DATA)
    except OSError:  # a hole to the end, or a file system that knows no holes
        return position


def _starts_image(source: Source, position: int) -> bool:
    try:
        minor = source.read(position + len(_FILE_MAGIC), 1)[0]
        if minor < _FIRST_MINOR_WITH_V2_HEADERS:
            return _starts_v1_image(source, position + _V1_FILE_HEADER_SIZE)
        first = _parse_header(source.read(position, SECTION_HEADER.size), source, 0, position)
        after = position + SECTION_HEADER.size + first.length
        if after + SECTION_HEADER.size >= source.end:
            return False
        _parse_header(source.read(after, SECTION_HEADER.size), source, 1, after)
    except DwarfsError:
        return False
    return True


def _starts_v1_image(source: Source, position: int) -> bool:
    kind, compression, length = _V1_HEADER.unpack(source.read(position, _V1_HEADER.size))
    if kind not in (SectionType.BLOCK, SectionType.METADATA_V2_SCHEMA) or not length:
        return False
    followers = {
        SectionType.BLOCK: (SectionType.BLOCK, SectionType.METADATA_V2_SCHEMA),
        SectionType.METADATA_V2_SCHEMA: (SectionType.METADATA_V2,),
    }[kind]
    after = position + _V1_HEADER.size + length
    if compression > Compression.LZ4HC or after + _V1_HEADER.size >= source.end:
        return False
    kind, compression, length = _V1_HEADER.unpack(source.read(after, _V1_HEADER.size))
    return kind in followers and compression <= Compression.LZ4HC and length > 0


def _read_version(source: Source) -> int:
    """The minor version of the image at the source's start."""
    if source.end - source.offset < _V1_FILE_HEADER_SIZE:
        raise NotAnImageError(
            f"{source.end - source.offset} bytes are too few for a DwarFS image",
            path=source.name,
            offset=source.offset,
        )
    start = source.read(source.offset, _V1_FILE_HEADER_SIZE)
    if not start.startswith(MAGIC):
        raise NotAnImageError(
            "not a DwarFS image (magic not found)", path=source.name, offset=source.offset
        )
    major, minor = start[len(MAGIC) :]
    if major != MAJOR or minor > NEWEST_MINOR:
        raise UnsupportedError(
            f"DwarFS format {major}.{minor} is not known, only {MAJOR}.0 to {MAJOR}.{NEWEST_MINOR}",
            path=source.name,
            offset=source.offset,
        )
    return minor


def _parse_header(raw: bytes, source: Source, number: int, offset: int) -> Header:
    """Decode a header of either kind, by its length."""
    if len(raw) == _V1_HEADER.size:
        return Header(*_V1_HEADER.unpack(raw))
    magic, major, _, sha, xxh, written_number, kind, compression, length = SECTION_HEADER.unpack(
        raw
    )
    if magic != MAGIC or major != MAJOR:
        raise DamagedError(
            "no section begins here (magic not found)", path=source.name, offset=offset
        )
    if written_number != number:
        raise DamagedError(
            f"this section is number {number} but says {written_number}",
            path=source.name,
            offset=offset,
            section=type_name(kind),
        )
    return Header(kind, compression, length, sha, xxh, raw[XXH_COVERS_FROM:])


def _check_place(header: Header, table: SectionTable, section: Section, source: Source) -> None:
    if header.type != section.type or header.length != section.size - table.header_size:
        raise DamagedError(
            f"the header ({type_name(header.type)}, {header.length} bytes) does not match"
            f" the section index ({section.size - table.header_size} bytes)",
            path=source.name,
            offset=section.offset,
            section=section.name,
        )


def _walk(source: Source, minor: int) -> Iterator[tuple[Section, bytes]]:
    """Every section in file order with its raw header."""
    v2 = minor >= _FIRST_MINOR_WITH_V2_HEADERS
    header_size = SECTION_HEADER.size if v2 else _V1_HEADER.size
    position = source.offset if v2 else source.offset + _V1_FILE_HEADER_SIZE
    number = 0
    while position < source.end:
        if number == MAX_SECTIONS:
            raise DamagedError(
                f"more than {MAX_SECTIONS} sections", path=source.name, offset=position
            )
        if position + header_size > source.end:
            raise DamagedError(
                "the image ends inside a section's header", path=source.name, offset=position
            )
        raw = source.read(position, header_size)
        header = _parse_header(raw, source, number, position)
        size = header_size + header.length
        if position + size > source.end:
            raise DamagedError(
                f"the section needs {header.length} bytes, more than the image has left",
                path=source.name,
                offset=position,
                section=type_name(header.type),
            )
        yield Section(number, header.type, position, size), raw
        position += size
        number += 1


def _read_index(source: Source, minor: int) -> tuple[Section, ...] | None:
    """The sections by the index, or None where there is none that can be trusted."""
    if source.end - source.offset < SECTION_HEADER.size + 8:
        return None
    last = int.from_bytes(source.read(source.end - 8, 8), "little")
    start = source.offset + (last & (1 << 48) - 1)
    length = source.end - start - SECTION_HEADER.size
    if (
        last >> 48 != SectionType.SECTION_INDEX
        or not 0 < length <= 8 * MAX_SECTIONS
        or length % 8
        or length < 3 * 8
    ):
        return None
    table = SectionTable(minor, (), indexed=True)
    place = Section(length // 8 - 1, SectionType.SECTION_INDEX, start, source.end - start)
    try:
        header, payload = load(source, table, place)
    except DwarfsError:
        return None  # the walk that follows says what is wrong, if anything but the index is
    if header.compression != Compression.NONE:
        return None
    words = [word for (word,) in struct.iter_unpack("<Q", payload)]
    offsets = [source.offset + (word & (1 << 48) - 1) for word in words]
    ends = [*offsets[1:], source.end]
    sections = tuple(
        Section(number, word >> 48, offset, end - offset)
        for number, (word, offset, end) in enumerate(zip(words, offsets, ends, strict=True))
    )
    if offsets[0] != source.offset or sections[-1] != place:
        return None
    if any(section.size < SECTION_HEADER.size for section in sections):
        return None
    return sections


def _xxh3(data: memoryview) -> int:
    from xxhash import xxh3_64_intdigest  # noqa: PLC0415

    return xxh3_64_intdigest(data)
