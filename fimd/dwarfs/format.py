"""Constants of the DwarFS image format 2.5 (doc/dwarfs-format.md of mhx/dwarfs)."""

import struct
from enum import IntEnum
from typing import Final

MAGIC: Final = b"DWARFS"
MAJOR: Final = 2
WRITTEN_MINOR: Final = 5
NEWEST_MINOR: Final = 6

# magic, major, minor, SHA-512/256 of [0x28, end), XXH3-64 of [0x30, end),
# section number, section type, compression, length of the payload
SECTION_HEADER: Final = struct.Struct("<6sBB32sQIHHQ")
SHA_COVERS_FROM: Final = 0x28
XXH_COVERS_FROM: Final = 0x30


class SectionType(IntEnum):
    """What a section holds."""

    BLOCK = 0
    METADATA_V2_SCHEMA = 7
    METADATA_V2 = 8
    SECTION_INDEX = 9
    HISTORY = 10


class Compression(IntEnum):
    """How a section's payload is compressed."""

    NONE = 0
    LZMA = 1
    ZSTD = 2
    LZ4 = 3
    LZ4HC = 4
    BROTLI = 5
    FLAC = 6
    RICEPP = 7
