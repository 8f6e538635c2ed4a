"""What an image may make its reader spend, by how many bytes it stores.

A few bytes can stand for very much: items of no width are counted but take no room, and what
repeats compresses to nothing. What writers make of real trees stays far below these bounds, and
past them nothing is unpacked: a small image costs little whatever it claims, and a large one not
more than its size warrants.
"""

from typing import Final

SCHEMA_BYTES: Final = 64 << 10
"""Of the schema, unpacked; real ones have one or two thousand."""

HISTORY_BYTES: Final = 1 << 20
"""Of all HISTORY sections, unpacked: some command lines."""

THRIFT_VALUES: Final = 1 << 16
"""Values in one Thrift struct, each of which becomes an object."""

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20


def metadata_bytes(stored: int) -> int:
    """The most bytes that a metadata section of `stored` bytes may unpack to.

    It compresses to a fifth or so; but a thousand snapshots of one tree, hard links all of them, to
    a four-hundredth.
    """
    return max(4 * _MIB, min(_KIB * stored, 64 * _MIB), 32 * stored)


def items(stored: int) -> int:
    """The most items that any list of the metadata may have, where its section has `stored` bytes.

    Of a tree of files some bits are left of each, for its inode's number is another one than the
    last one's; of its snapshots less, up to a hundred names in a byte. A KiB warrants 64 Ki items.
    """
    return max(64 * _KIB, min(stored * stored // 16, 256 * stored))


def chunks(stored: int) -> int:
    """The same of the list of chunks: those of two files differ, and each takes much memory."""
    return max(64 * _KIB, 64 * stored)


def block_bytes(block_size: int, stored: int) -> int:
    """The most bytes that a block of `stored` bytes may unpack to.

    64 MiB are the largest blocks that mkdwarfs makes unasked, and what repeats in them may compress
    to nothing; larger ones hold what is worth their memory.
    """
    return min(block_size, max(64 * _MIB, 64 * stored))


def paths_bytes(paths: int) -> int:
    """The most bytes that so many paths of one image may have together.

    The paths of nested directories are as long as they are many. Trees of thousands of levels have
    been seen; no tree's paths have a KiB on average.
    """
    return max(32 * _MIB, _KIB * paths)
