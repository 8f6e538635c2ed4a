"""Compression levels 0 to 9: mkdwarfs's table, and what differs from it.

Level 3 asks LZ4HC for level 5 where mkdwarfs takes 9, and level 5 asks zstd for 18 with fewer
attempts where mkdwarfs takes 19: half and a sixth less time for 1.0 % and 0.3 % more bytes, and
the order and the segments found here save more than that. The look-back is 32 MiB at least where
mkdwarfs takes one block, since small blocks would let repetitions go.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from fimd.dwarfs.format import Compression


class Order(Enum):
    """In which order the files' contents are stored."""

    NONE = "as they come"
    PATH = "by path"
    SIMILARITY = "by kind, similar ones next to each other"


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression, its own level, and the binary logarithm of zstd's attempts if not that's."""

    compression: Compression
    level: int = 0
    search_log: int | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """How an image is packed.

    Attributes:
        block_bits: a block holds up to 2 to the power of this many bytes.
        data: compresses blocks.
        schema: compresses the schema and the history.
        metadata: compresses the metadata.
        order: of the files.
        segments: the least number of bytes that is looked for in earlier data, 0 to not look.
        spacing: bytes from one place that is remembered to the next, on average.
        lookback: how many full blocks are kept to find segments in.
    """

    block_bits: int
    data: Codec
    schema: Codec
    metadata: Codec
    order: Order
    segments: int = 0
    spacing: int = 0
    lookback: int = 0

    @property
    def block_size(self) -> int:
        """The most bytes of a block."""
        return 1 << self.block_bits

    @property
    def thread_memory(self) -> int:
        """About the bytes that one more thread takes: its block, and what its codec works in."""
        match self.data.compression:
            case Compression.LZMA:
                return 13 * self.block_size
            case Compression.ZSTD:
                return 18 * self.block_size
            case _:
                return 3 * self.block_size


NONE: Final = Codec(Compression.NONE)
_LZ4: Final = Codec(Compression.LZ4)
_SCHEMA: Final = Codec(Compression.ZSTD, 16)
_SEGMENT: Final = 4096


def _lz4hc(level: int) -> Codec:
    return Codec(Compression.LZ4HC, level)


def _zstd(level: int, search_log: int | None = None) -> Codec:
    return Codec(Compression.ZSTD, level, search_log)


def _lzma(level: int) -> Codec:
    return Codec(Compression.LZMA, level)


LEVELS: Final = (
    Level(20, NONE, NONE, NONE, Order.NONE),
    Level(20, _LZ4, _SCHEMA, NONE, Order.PATH),
    Level(20, _lz4hc(9), _SCHEMA, NONE, Order.PATH),
    Level(21, _lz4hc(5), _SCHEMA, NONE, Order.SIMILARITY, _SEGMENT, _SEGMENT >> 1, 16),
    Level(22, _zstd(11), _SCHEMA, NONE, Order.SIMILARITY, _SEGMENT, _SEGMENT >> 2, 8),
    Level(23, _zstd(18, search_log=5), _SCHEMA, NONE, Order.SIMILARITY, _SEGMENT, _SEGMENT >> 2, 4),
    Level(24, _zstd(22), _SCHEMA, NONE, Order.SIMILARITY, _SEGMENT, _SEGMENT >> 3, 2),
    Level(24, _zstd(22), _SCHEMA, _zstd(22), Order.SIMILARITY, _SEGMENT, _SEGMENT >> 3, 2),
    Level(24, _lzma(9), _SCHEMA, _lzma(9), Order.SIMILARITY, _SEGMENT, _SEGMENT >> 4, 2),
    Level(26, _lzma(9), _SCHEMA, _lzma(9), Order.SIMILARITY, _SEGMENT, _SEGMENT >> 4, 1),
)
DEFAULT_LEVEL: Final = 7
