"""What the kernel is told of one image, and asks of it: inodes, names, attributes, bytes.

The kernel's number of an inode is the tree's with the image's first number added, so that one mount
can show several images, each with a range of its own.
"""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

import pyfuse3

from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.listings import Listings
from fimd.dwarfs.loading import Blocks
from fimd.dwarfs.memory import Memory
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE, ROOT, Attributes

FOR_EVER: Final = 1e9  # seconds
_STAT_BLOCK: Final = 512  # bytes of st_blocks's unit
_MOST_OWNERS: Final = 4096  # that are remembered
_READ_AHEAD: Final = 128 << 10
_GIVEN_AT_ONCE: Final = 64 << 10  # bytes of a file; the kernel reads half as much ahead at first
_FEW_CHUNKS: Final = 16

Reply = Callable[[bytes, pyfuse3.EntryAttributes, int], bool]
"""Takes an entry and the number of the next one; false where there was no room for it."""


class _Opened:
    """Which inodes have been opened: a bit each."""

    def __init__(self, count: int) -> None:
        self._bits = bytearray(-(-count // 8))

    def add(self, inode: int) -> bool:
        """Note that an inode is opened, and tell whether it is for the first time."""
        byte, bit = inode >> 3, 1 << (inode & 7)
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        return True


class OpenFile:
    """A file of an image while it is open."""

    __slots__ = (
        "_blocks",
        "_end",
        "_file",
        "_image",
        "_inode",
        "_next_offset",
        "_prefetched",
        "_reading",
    )

    def __init__(self, image: Image, blocks: Blocks, inode: int) -> None:
        self._image = image
        self._blocks = blocks
        self._inode = inode
        self._file: FileMap | None = None  # made by the first read: many files have none
        self._next_offset = 0
        self._prefetched = HOLE  # the last block for which others were prefetched
        self._reading = HOLE  # the one that is read in sequence,
        self._end = 0  # up to here

    async def read(self, offset: int, size: int) -> Buffer:
        """At most `size` bytes, fewer only at the file's end."""
        file = self._file
        if file is None:
            file = self._file = self._image.file_map(self._inode)
        pieces = file.pieces(offset, size)
        parts: list[Buffer] = []
        blocks = self._blocks
        # all are asked for before any is waited for, and what is needed now before what is later
        ends: dict[int, int] = {}
        for number, start, length in pieces:
            if number != HOLE and blocks.peek(number, start + length) is None:
                ends[number] = max(ends.get(number, 0), start + length)
        waiting = {number: blocks.load(number, end) for number, end in ends.items()}
        # the kernel reads ahead this far at once when a program wants it all
        if offset == self._next_offset and (offset or size >= _READ_AHEAD) and pieces:
            last = pieces[-1][0]
            if last != self._prefetched:
                self._prefetched = last
                blocks.prefetch(file, offset + size - 1)
        left = self._leave(pieces) if offset == self._next_offset else ()
        self._next_offset = offset + size
        for number, start, length in pieces:
            if number == HOLE:
                parts.append(bytes(length))
                continue
            block = blocks.peek(number, start + length)
            if block is None:
                block = await (waiting.get(number) or blocks.load(number, start + length))
            parts.append(self._image.slice(number, block, start, length))
        for number, end in left:
            blocks.passed(file, number, end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _leave(self, pieces: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Read on in sequence, and return each block that this leaves with where it does."""
        left = []
        for number, start, length in pieces:
            if number != self._reading:
                left.append((self._reading, self._end))
                self._reading = number
            self._end = start + length
        return left


Owner = int | Callable[[int], int] | None


class _Owners(dict[int, int]):
    """What each owner in an image is shown as."""

    def __init__(self, shown: Owner) -> None:
        super().__init__()
        self._shown = shown

    def __missing__(self, owner: int) -> int:
        if self._shown is None:
            return owner
        shown = self._shown if isinstance(self._shown, int) else self._shown(owner)
        if len(self) < _MOST_OWNERS:
            self[owner] = shown
        return shown


@dataclass(frozen=True)
class Shown:
    """How one image is shown.

    Attributes:
        uid, gid: the owner of everything, or what an owner in the image is shown as; None leaves
            what the image says.
        cache_bytes: how much of decompressed blocks is kept at most.
        inode_offset: what is to be added to the tree's inode numbers. With offsets far apart,
            images that are shown as one filesystem have no number in common.
    """

    image: Image
    uid: "Owner"
    gid: "Owner"
    cache_bytes: int
    inode_offset: int


class ServedImage:
    """One image, with the numbers that its inodes have to the kernel.

    `pool` and `memory` are shared with other images.

    Attributes:
        first: what is added to the tree's inode numbers, the number of the top directory; where
            another image has the numbers from `inode_offset` on, it is more than that.
    """

    def __init__(self, shown: Shown, pool: ThreadPoolExecutor, memory: Memory, first: int) -> None:
        self.image = shown.image
        self.first = first
        self._tree = shown.image.tree
        self._blocks = Blocks(shown.image, shown.cache_bytes, pool, memory)
        self._listings = Listings(self._listing)
        self._opened = _Opened(shown.image.metadata.node_count)
        self._uids = _Owners(shown.uid)
        self._gids = _Owners(shown.gid)
        # every answer is sent before the next one is made: one buffer serves all of them
        self._entry = pyfuse3.EntryAttributes()
        self._entry.entry_timeout = self._entry.attr_timeout = FOR_EVER
        self._entry.st_blksize = _READ_AHEAD
        self._times = (0, 0, 0)  # what the buffer has

    def lookup(self, directory: int, name: bytes) -> pyfuse3.EntryAttributes | None:
        """What a directory has under a name."""
        inode = self._tree.lookup(directory - self.first, name)
        return None if inode is None else self._fill(self._tree.attributes(inode))

    def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        """What stat(2) says."""
        return self._fill(self._tree.attributes(inode - self.first))

    def root(self) -> pyfuse3.EntryAttributes:
        """What stat(2) says of the image's top directory."""
        return self._fill(self._tree.attributes(ROOT))

    def readlink(self, inode: int) -> bytes:
        """A symbolic link's target."""
        return self._tree.readlink(inode - self.first)

    def opendir(self, directory: int) -> None:
        """Note that a directory is going to be read."""
        self._listings.opened(directory - self.first)

    def readdir(self, directory: int, start: int, reply: Reply) -> None:
        """Give a directory's entries from number `start` on to `reply`, until that has no room."""
        inode = directory - self.first
        told: list[Attributes] = []
        full = False
        fill = self._fill
        entries = self._listings.entries(inode, start)
        for position, (name, attributes) in enumerate(entries, start + 1):
            if not reply(name, fill(attributes), position):
                full = True
                break
            told.append(attributes)
        self._listings.replied(inode, start, told, full=full)

    def prepare(self) -> None:
        """Decode what a reader of directories will ask for next, while it is busy."""
        self._listings.prepare()

    def _listing(self, inode: int, start: int) -> Iterator[tuple[bytes, Attributes]]:
        attributes = self._tree.attributes
        for name, child in self._tree.readdir(inode, start):
            yield name, attributes(child)

    def open(self, inode: int, flags: int) -> OpenFile:
        """A file, to be read only."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(errno.EROFS)
        number = inode - self.first
        if self._opened.add(number):
            self._give(number)
        return OpenFile(self.image, self._blocks, number)

    def _give(self, number: int) -> None:
        """Give the kernel the content of a small file that is opened for the first time.

        It then need not ask for it. Only what is decompressed already is given: who opens a file
        may not want to read it. And only before anybody has opened it: where the kernel waits for
        a page that it has asked for, giving it that page would wait for the kernel.
        """
        first, last = self._tree.content(number)
        if not 0 < last - first <= _FEW_CHUNKS:
            return
        file = self.image.file_map(number)
        if not 0 < file.size <= _GIVEN_AT_ONCE:
            return
        parts: list[Buffer] = []
        for block, start, size in file.extents:
            if block == HOLE:
                parts.append(bytes(size))
                continue
            found = self._blocks.peek(block, start + size)
            if found is None:
                return
            parts.append(self.image.slice(block, found, start, size))
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        with suppress(OSError):  # it asks for what it did not take
            pyfuse3.notify_store(number + self.first, 0, cast("bytes", content))

    def _fill(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        """Attributes in the kernel's form, in a buffer that the next answer overwrites."""
        inode, mode, nlink, uid, gid, rdev, size, allocated, atime, mtime, ctime = attributes
        entry = self._entry
        entry.st_ino = inode + self.first
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = self._uids[uid]
        entry.st_gid = self._gids[gid]
        entry.st_rdev = rdev
        entry.st_size = size
        entry.st_blocks = -(-allocated // _STAT_BLOCK)
        # the slowest of all, and neighbours often have the same
        if (times := (atime, mtime, ctime)) != self._times:
            self._times = times
            entry.st_atime_ns = atime
            entry.st_mtime_ns = mtime
            entry.st_ctime_ns = ctime
        return entry
