"""What a tree to be packed consists of: the writer's input, whatever it was made from."""

import stat
from collections.abc import Callable, Generator, Hashable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from fimd.dwarfs.errors import DwarfsError


class PackError(DwarfsError):
    """A tree that cannot be packed as it is: what a file is, or did while it was read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in the tree.

    Attributes:
        path: relative to the root, components joined by "/"; the root itself is b"".
        mode: file type and permissions, as in `st_mode`.
        uid: numeric owner.
        gid: numeric group.
        mtime_ns: nanoseconds since 1970.
        size: of a regular file, in bytes.
        rdev: of a device, as in `st_rdev`.
        target: of a symbolic link.
        identity: equal for regular files that are one file with several names, else None.
        hole_bytes: of a regular file: how much of its size its reader yields as holes.
        source: whatever the reader of the file's content needs to find it.
    """

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    rdev: int = 0
    target: bytes = b""
    identity: Hashable | None = None
    hole_bytes: int = 0
    source: Any = None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


Piece = bytes | bytearray | memoryview | int
"""A part of a file's content: its bytes, or the size of a hole."""

ReadContent = Callable[[Entry], Generator[Piece]]
"""Reads a regular file from its start, in pieces of any size up to some MiB.

A piece is valid until the next one is asked for. Closing the iterator releases what it holds.
Raises PackError where the content is not what the entry says.
"""


def checked(entry: Entry, read: ReadContent) -> Generator[Piece]:
    """The pieces of a file, which must come to its size."""
    left = entry.size
    with closing(read(entry)) as pieces:
        for piece in pieces:
            left -= piece if isinstance(piece, int) else len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise PackError("changed its size while it was being packed", path=printable(entry.path))


def sort_key(path: bytes) -> bytes:
    """Sorts paths so that a directory comes right before what it holds, siblings by name."""
    return path.replace(b"/", b"\0")


def printable(path: bytes) -> str:
    """A path for a message, whatever bytes it has."""
    return path.decode("utf-8", "backslashreplace")
