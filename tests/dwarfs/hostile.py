"""Hostile images, built table by table: what no writer makes, with every checksum right."""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard

from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.sections import pack_section
from fimd.dwarfs.write.frozen import Column, Numbers, Records, Some, Struct, column, encode

DIRECTORY = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
LINK = stat.S_IFLNK | 0o777
DEVICE = stat.S_IFCHR | 0o600

Sections = Iterable[tuple[SectionType, Compression, bytes]]


def zeros(count: int) -> Column:
    """Numbers that take no room."""
    return np.broadcast_to(np.uint64(0), (count,))


def same(value: int, count: int) -> Column:
    """The same number many times, which compresses to nothing."""
    return np.broadcast_to(np.uint64(value), (count,))


def numbers(*values: int) -> Numbers:
    return Numbers(column(values))


@dataclass(frozen=True)
class Inodes:
    """So many inodes of each mode, in order."""

    counts: Mapping[int, int]

    def tables(self) -> dict[int, Any]:
        """The tables of inodes and of modes."""
        kinds = [np.full(count, mode, np.uint64) for mode, count in enumerate(self.counts.values())]
        numbers_of_modes = np.concatenate(kinds)
        return {
            3: Records({2: numbers_of_modes, 4: zeros(len(numbers_of_modes))}),
            9: numbers(*self.counts),
        }


def entries(names: Iterable[int], targets: Iterable[int]) -> Some:
    """Names' and inodes' numbers; the root's entry comes first by itself."""
    return Some(Records({1: column((0, *names)), 2: column((0, *targets))}))


def strings(*values: bytes) -> Some:
    """A string table."""
    ends = np.cumsum([0, *map(len, values)])
    return Some(Struct({1: b"".join(values), 3: Numbers(column(ends.tolist()))}))


def directories(*firsts: int) -> Records:
    """The first entry of each directory, and the last one's end."""
    return Records({1: zeros(len(firsts)), 2: column(firsts), 3: zeros(len(firsts))})


def metadata(tables: Mapping[int, Any]) -> tuple[bytes, bytes]:
    """Schema and metadata of an image that has but a root directory, with other tables in place."""
    root = {
        2: directories(1, 1),
        3: Inodes({DIRECTORY: 1}),
        4: numbers(0),
        7: numbers(0),
        8: numbers(0),
        9: numbers(DIRECTORY),
        15: 1 << 20,
        18: Some(Struct({1: True, 8: True})),
        19: entries((), ()),
    }
    fields = {**root, **tables}
    if isinstance(fields[3], Inodes):
        fields |= {**fields[3].tables(), **({9: tables[9]} if 9 in tables else {})}
    return encode(Struct({key: fields[key] for key in sorted(fields) if fields[key] is not None}))


def image(
    tables: Mapping[int, Any],
    blocks: Sections = ((SectionType.BLOCK, Compression.NONE, bytes(16)),),
    padding: int = 0,
) -> bytes:
    """An image's bytes; `padding` zeros in the metadata compress to nothing, and count as data."""
    schema, frozen = metadata(tables)
    packed = zstandard.ZstdCompressor(level=19).compress(frozen + bytes(padding))
    return assemble(
        (
            *blocks,
            (SectionType.METADATA_V2_SCHEMA, Compression.NONE, schema),
            (SectionType.METADATA_V2, Compression.ZSTD, packed),
        )
    )


def assemble(sections: Sections) -> bytes:
    """Sections end to end."""
    return b"".join(
        pack_section(number, kind, compression, payload) + payload
        for number, (kind, compression, payload) in enumerate(sections)
    )


def block(compression: Compression, payload: bytes) -> tuple[SectionType, Compression, bytes]:
    return SectionType.BLOCK, compression, payload


def one_file(size: int, block_size: int, *chunks: tuple[int, int, int]) -> dict[int, Any]:
    """The tables of a root directory with one file of these chunks (block, offset, size)."""
    wanted = chunks or ((0, 0, size),)
    return {
        1: Records({field: column(chunk[field - 1] for chunk in wanted) for field in (1, 2, 3)}),
        2: directories(1, 2),
        3: Inodes({DIRECTORY: 1, FILE: 1}),
        4: numbers(0, len(wanted)),
        15: block_size,
        19: entries((0,), (1,)),
        24: strings(b"file"),
    }
