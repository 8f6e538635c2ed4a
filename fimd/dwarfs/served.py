"""What the kernel is told of one image, and asks of it: inodes, names, attributes, bytes.

The kernel's number of an inode is the tree's with the image's first number added, so that one mount
can show several images, each with a range of its own.
"""

import asyncio
import errno
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyfuse3

from fimd.dwarfs.blocks import BlockCache
from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE, ROOT, Attributes

FOR_EVER: Final = 1e9  # seconds
_STAT_BLOCK: Final = 512  # bytes of st_blocks's unit
_READ_AHEAD: Final = 128 << 10
_PREFETCHED_BLOCKS: Final = 2


class _Blocks:
    """The blocks of an image for an event loop: at hand, or awaited."""

    def __init__(self, image: Image, capacity: int, pool: ThreadPoolExecutor) -> None:
        self._cache = BlockCache(image.load_block, capacity)
        self._pool = pool
        self._loading: dict[int, asyncio.Future[Buffer]] = {}
        self._prefetched = min(_PREFETCHED_BLOCKS, capacity // image.block_size - 1)
        self.peek = self._cache.peek

    def load(self, number: int) -> "asyncio.Future[Buffer]":
        """The block, once a thread has it; who asks meanwhile gets the same future."""
        future = self._loading.get(number)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._pool, self._cache.get, number)
            self._loading[number] = future
            future.add_done_callback(functools.partial(self._loaded, number))
        return future

    def prefetch(self, file: FileMap, offset: int) -> None:
        """Start on the blocks that reading on from `offset` will need."""
        for number in file.following_blocks(offset, self._prefetched):
            if self.peek(number) is None:
                self.load(number)

    def _loaded(self, number: int, future: "asyncio.Future[Buffer]") -> None:
        del self._loading[number]
        if not future.cancelled():
            future.exception()  # a prefetch's failure is nobody's, until the block is read


class OpenFile:
    """A file of an image while it is open."""

    __slots__ = ("_block", "_blocks", "_file", "_image", "_next_offset")

    def __init__(self, image: Image, blocks: _Blocks, file: FileMap) -> None:
        self._image = image
        self._blocks = blocks
        self._file = file
        self._next_offset = 0
        self._block = HOLE

    async def read(self, offset: int, size: int) -> Buffer:
        """At most `size` bytes, fewer only at the file's end."""
        pieces = self._file.pieces(offset, size)
        parts: list[Buffer] = []
        blocks = self._blocks
        # all are asked for before any is waited for, and what is needed now before what is later
        waiting = {
            number: blocks.load(number)
            for number, _, _ in pieces
            if number != HOLE and blocks.peek(number) is None
        }
        # the kernel reads ahead this far at once when a program wants it all
        if offset == self._next_offset and (offset or size >= _READ_AHEAD) and pieces:
            last = pieces[-1][0]
            if last != self._block:
                self._block = last
                blocks.prefetch(self._file, offset + size - 1)
        self._next_offset = offset + size
        for number, start, length in pieces:
            if number == HOLE:
                parts.append(bytes(length))
                continue
            block = blocks.peek(number)
            if block is None:
                block = await (waiting.get(number) or blocks.load(number))
            parts.append(self._image.slice(number, block, start, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)


class ServedImage:
    """One image, with the numbers that its inodes have to the kernel.

    `uid` and `gid` are shown as the owner of everything; None leaves what the image says. At most
    `cache_bytes` of decompressed blocks are kept.

    Attributes:
        first: what is added to the tree's inode numbers, and so the number of the top directory.
    """

    def __init__(
        self,
        image: Image,
        pool: ThreadPoolExecutor,
        *,
        uid: int | None,
        gid: int | None,
        cache_bytes: int,
        first: int,
    ) -> None:
        self.image = image
        self.first = first
        self._tree = image.tree
        self._blocks = _Blocks(image, cache_bytes, pool)
        self._uid = uid
        self._gid = gid
        # every answer is sent before the next one is made: one buffer serves all of them
        self._entry = pyfuse3.EntryAttributes()
        self._entry.entry_timeout = self._entry.attr_timeout = FOR_EVER
        self._entry.st_blksize = _READ_AHEAD
        self._times = (0, 0, 0)  # what the buffer has

    def lookup(self, directory: int, name: bytes) -> pyfuse3.EntryAttributes | None:
        """What a directory has under a name."""
        inode = self._tree.lookup(directory - self.first, name)
        return None if inode is None else self.fill(self._tree.attributes(inode))

    def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        """What stat(2) says."""
        return self.fill(self._tree.attributes(inode - self.first))

    def root(self) -> pyfuse3.EntryAttributes:
        """What stat(2) says of the image's top directory."""
        return self.fill(self._tree.attributes(ROOT))

    def readlink(self, inode: int) -> bytes:
        """A symbolic link's target."""
        return self._tree.readlink(inode - self.first)

    def listing(self, directory: int, start: int) -> Iterator[tuple[bytes, Attributes]]:
        """Each entry from number `start` on: its name, and what `fill` takes."""
        attributes = self._tree.attributes
        for name, inode in self._tree.readdir(directory - self.first, start):
            yield name, attributes(inode)

    def open(self, inode: int, flags: int) -> OpenFile:
        """A file, to be read only."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(errno.EROFS)
        return OpenFile(self.image, self._blocks, self.image.file_map(inode - self.first))

    def fill(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        """The same in the kernel's form, in a buffer that the next answer overwrites."""
        inode, mode, nlink, uid, gid, rdev, size, allocated, atime, mtime, ctime = attributes
        entry = self._entry
        entry.st_ino = inode + self.first
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = uid if self._uid is None else self._uid
        entry.st_gid = gid if self._gid is None else self._gid
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
