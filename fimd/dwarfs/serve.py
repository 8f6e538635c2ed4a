"""An image as a read-only filesystem, by pyfuse3 on asyncio.

An image never changes, so the kernel may keep for ever what it has been told, and asks once. What
it does ask is answered from the metadata at once; only blocks that have yet to be decompressed make
a handler wait, for one of a few threads.
"""

import errno
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyfuse3

from fimd.dwarfs import fuse
from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.listings import Listings
from fimd.dwarfs.loading import Blocks
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE, ROOT, Attributes

_FOR_EVER: Final = 1e9  # seconds
_STAT_BLOCK: Final = 512  # bytes of st_blocks's unit
_FILESYSTEM_BLOCK: Final = 4096
_NAME_MAX: Final = 255
_SWITCH_INTERVAL: Final = 0.0005  # seconds
_READ_AHEAD: Final = 128 << 10

# ruff: noqa: ARG002 - pyfuse3 calls every handler with a context that nothing here needs

_guarded = functools.partial(fuse.guarded, expected=(DwarfsError,))


async def serve(
    image: Image,
    mount_point: str,
    *,
    uid: int | None = None,
    gid: int | None = None,
    fsname: str,
    allow_other: bool = False,
    cache_bytes: int,
    threads: int = 2,
    inode_offset: int = 1,
    on_ready: Callable[[], None],
) -> None:
    """Mount `image` and serve it until it is unmounted.

    `uid` and `gid` are shown as the owner of everything; None leaves what the image says. At most
    `cache_bytes` of decompressed blocks are kept. `on_ready` is called once the kernel has the
    mount. Raises RuntimeError where mounting fails. Starts `threads` threads when it first
    decompresses, none before. `inode_offset` is added to the tree's inode numbers, but for the
    root's: with offsets far apart, images that are shown as one filesystem have no number in
    common. One image per process: pyfuse3 cannot do more.
    """
    # FLAC and RICEPP are decoded in Python: let requests be answered meanwhile
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()  # what is here now stays until the process ends
    options = [
        "default_permissions",
        "ro",
        "subtype=dwarfs",
        f"fsname={_escape(fsname)}",
    ]
    if allow_other:
        options.append("allow_other")
    if os.geteuid() == 0:  # anyone else gets nosuid and nodev from fusermount3
        options += ["dev", "suid"]
    with ThreadPoolExecutor(threads, thread_name_prefix="decompress") as pool:
        operations = _Operations(image, Blocks(image, cache_bytes, pool), uid, gid, inode_offset)
        await fuse.run(operations, mount_point, options, on_ready, operations.prepare)


def _escape(value: str) -> str:
    """Make a mount option's value of any text."""
    ascii_only = value.encode("ascii", "replace").decode()
    return ascii_only.replace("\\", "\\\\").replace(",", "\\,")


class _OpenFile:
    """What is known of a file while it is open."""

    __slots__ = ("block", "end", "file", "next_offset", "reading")

    def __init__(self, file: FileMap) -> None:
        self.file = file
        self.next_offset = 0
        self.block = HOLE  # the last one for which others were prefetched
        self.reading = HOLE  # the one that is read in sequence,
        self.end = 0  # up to here

    def passed(self, pieces: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Read on, and return each block that this leaves with where it does."""
        left = []
        for number, start, length in pieces:
            if number != self.reading:
                left.append((self.reading, self.end))
                self.reading = number
            self.end = start + length
        return left


class _Operations(pyfuse3.Operations):
    """Answers the kernel. The root is 1 to FUSE, and 0 in the tree."""

    def __init__(
        self, image: Image, blocks: Blocks, uid: int | None, gid: int | None, inode_offset: int
    ) -> None:
        super().__init__()
        self._image = image
        self._tree = image.tree
        self._blocks = blocks
        self._uid = uid
        self._gid = gid
        self._offset = inode_offset
        self._open_files: dict[int, _OpenFile] = {}
        self._next_handle = 1
        self._listings = Listings(self._listing)
        self.prepare = self._listings.prepare
        # every answer is sent before the next one is made: one buffer serves all of them
        self._entry = pyfuse3.EntryAttributes()
        self._entry.entry_timeout = self._entry.attr_timeout = _FOR_EVER
        self._times = (0, 0, 0)  # what the buffer has
        self._entry.st_blksize = _READ_AHEAD
        self._absent = pyfuse3.EntryAttributes()
        self._absent.st_ino = 0
        self._absent.entry_timeout = _FOR_EVER

    def _inode(self, number: int) -> int:
        """The tree's number of what has this one to FUSE."""
        return ROOT if number == pyfuse3.ROOT_INODE else number - self._offset

    @_guarded
    async def lookup(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._tree.lookup(self._inode(parent), name)
        if inode is None:
            return self._absent  # with a timeout: the kernel remembers that it is not there
        return self._attributes(self._tree.attributes(inode))

    @_guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(self._tree.attributes(self._inode(inode)))

    @_guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._tree.readlink(self._inode(inode))

    @_guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        self._listings.opened(self._inode(inode))
        return inode

    @_guarded
    async def releasedir(self, fh: int) -> None:
        """Nothing is kept by handle."""

    @_guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory = self._inode(fh)
        told: list[Attributes] = []
        full = False
        fill, reply = self._attributes, pyfuse3.readdir_reply
        entries = self._listings.entries(directory, start_id)
        for position, (name, facts) in enumerate(entries, start_id + 1):
            if not reply(token, name, fill(facts), position):
                full = True
                break
            told.append(facts)
        self._listings.replied(directory, start_id, told, full=full)

    def _listing(self, directory: int, start: int) -> Iterator[tuple[bytes, Attributes]]:
        attributes = self._tree.attributes
        for name, inode in self._tree.readdir(directory, start):
            yield name, attributes(inode)

    @_guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(errno.EROFS)
        handle = self._next_handle
        self._next_handle += 1
        self._open_files[handle] = _OpenFile(self._image.file_map(self._inode(inode)))
        return pyfuse3.FileInfo(fh=handle, keep_cache=True)

    @_guarded
    async def release(self, fh: int) -> None:
        del self._open_files[fh]

    @_guarded
    async def read(self, fh: int, off: int, size: int) -> Buffer:  # type: ignore[override]
        opened = self._open_files[fh]
        pieces = opened.file.pieces(off, size)
        parts: list[Buffer] = []
        blocks = self._blocks
        # all are asked for before any is waited for, and what is needed now before what is later
        ends: dict[int, int] = {}
        for number, start, length in pieces:
            if number != HOLE and blocks.peek(number, start + length) is None:
                ends[number] = max(ends.get(number, 0), start + length)
        waiting = {number: blocks.load(number, end) for number, end in ends.items()}
        # the kernel reads ahead this far at once when a program wants it all
        if off == opened.next_offset and (off or size >= _READ_AHEAD) and pieces:
            last = pieces[-1][0]
            if last != opened.block:
                opened.block = last
                blocks.prefetch(opened.file, off + size - 1)
        left = opened.passed(pieces) if off == opened.next_offset else ()
        opened.next_offset = off + size
        for number, start, length in pieces:
            if number == HOLE:
                parts.append(bytes(length))
                continue
            block = blocks.peek(number, start + length)
            if block is None:
                block = await (waiting.get(number) or blocks.load(number, start + length))
            parts.append(self._image.slice(number, block, start, length))
        for number, end in left:
            blocks.passed(opened.file, number, end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @_guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = _FILESYSTEM_BLOCK
        answer.f_blocks = -(-self._image.total_size // _FILESYSTEM_BLOCK)
        answer.f_files = self._image.metadata.inode_count
        answer.f_namemax = _NAME_MAX
        answer.f_bfree = answer.f_bavail = answer.f_ffree = answer.f_favail = 0
        return answer

    def _attributes(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        inode, mode, nlink, uid, gid, rdev, size, allocated, atime, mtime, ctime = attributes
        entry = self._entry
        entry.st_ino = inode + self._offset if inode else pyfuse3.ROOT_INODE
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
