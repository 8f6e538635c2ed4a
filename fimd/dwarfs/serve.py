"""Images as read-only filesystems, by pyfuse3 on asyncio: one as a mount, or several in one.

An image never changes, so the kernel may keep for ever what it has been told, and asks once. What
it does ask is answered from the metadata at once; only blocks that have yet to be decompressed make
a handler wait, for one of a few threads.
"""

import errno
import functools
import gc
import os
import stat
import sys
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, Protocol

import pyfuse3

from fimd.dwarfs import fuse
from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.memory import Memory
from fimd.dwarfs.reader import Image
from fimd.dwarfs.served import FOR_EVER, OpenFile, Reply, ServedImage, Shown

_FILESYSTEM_BLOCK: Final = 4096
_NAME_MAX: Final = 255
_SWITCH_INTERVAL: Final = 0.0005  # seconds
_THREADS: Final = 2

# ruff: noqa: ARG002 - pyfuse3 calls every handler with a context that nothing here needs

_guarded = functools.partial(fuse.guarded, expected=(DwarfsError,))


def _locate(error: Exception, operations: "_Operations", inode: int, *_: object) -> None:
    """Add to an image's fault which image it is of, and where its metadata are."""
    if isinstance(error, DwarfsError):
        error.at(*operations.image_of(inode).metadata_place)


_answered = functools.partial(fuse.answered, expected=(DwarfsError,), locate=_locate)


async def serve(
    image: Image,
    mount_point: str,
    *,
    uid: int | None = None,
    gid: int | None = None,
    fsname: str,
    allow_other: bool = False,
    cache_bytes: int,
    threads: int = _THREADS,
    on_ready: Callable[[], None],
) -> None:
    """Mount `image` and serve it until it is unmounted.

    `uid` and `gid` are shown as the owner of everything; None leaves what the image says. At most
    `cache_bytes` of decompressed blocks are kept. `on_ready` is called once the kernel has the
    mount. Raises RuntimeError where mounting fails. Starts `threads` threads when it first
    decompresses, none before. One mount per process: pyfuse3 cannot do more.
    """
    shown = Shown(image, uid, gid, cache_bytes, pyfuse3.ROOT_INODE)
    with ThreadPoolExecutor(threads, thread_name_prefix="decompress") as pool:
        served = ServedImage(shown, pool, Memory(), shown.inode_offset)
        await _run(_Operations([served], [image]), mount_point, fsname, allow_other, on_ready)


async def serve_all(
    images: Mapping[bytes, Shown],
    mount_point: str,
    *,
    fsname: str,
    allow_other: bool = False,
    threads: int = _THREADS,
    on_ready: Callable[[], None],
) -> None:
    """Mount several images as directories with these names, and serve them as `serve` does."""
    with ThreadPoolExecutor(threads, thread_name_prefix="decompress") as pool:
        names = {}
        memory = Memory()
        end = pyfuse3.ROOT_INODE + 1
        for name, shown in sorted(images.items(), key=lambda item: item[1].inode_offset):
            first = max(shown.inode_offset, end)
            end = first + shown.image.metadata.node_count
            names[name] = ServedImage(shown, pool, memory, first)
        operations = _Operations(
            [_Top(names), *names.values()], [shown.image for shown in images.values()]
        )
        await _run(operations, mount_point, fsname, allow_other, on_ready)


async def _run(
    operations: "_Operations",
    mount_point: str,
    fsname: str,
    allow_other: bool,
    on_ready: Callable[[], None],
) -> None:
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
    await fuse.run(operations, mount_point, options, on_ready, operations.prepare)


def _escape(value: str) -> str:
    """Make a mount option's value of any text."""
    ascii_only = value.encode("ascii", "replace").decode()
    return ascii_only.replace("\\", "\\\\").replace(",", "\\,")


class _Part(Protocol):
    """What answers for the inodes from `first` on, up to the next part's."""

    first: int

    def lookup(self, directory: int, name: bytes) -> pyfuse3.EntryAttributes | None: ...
    def attributes(self, inode: int) -> pyfuse3.EntryAttributes: ...
    def readlink(self, inode: int) -> bytes: ...
    def opendir(self, directory: int) -> None: ...
    def readdir(self, directory: int, start: int, reply: Reply) -> None: ...
    def prepare(self) -> None: ...
    def open(self, inode: int, flags: int) -> OpenFile: ...


class _Top:
    """The directory that several images lie in."""

    first = pyfuse3.ROOT_INODE

    def __init__(self, images: Mapping[bytes, ServedImage]) -> None:
        self._images = images
        self._entry = pyfuse3.EntryAttributes()
        self._entry.st_ino = pyfuse3.ROOT_INODE
        self._entry.st_mode = stat.S_IFDIR | 0o755
        self._entry.st_nlink = 2 + len(images)
        self._entry.st_uid, self._entry.st_gid = os.getuid(), os.getgid()
        self._entry.entry_timeout = self._entry.attr_timeout = FOR_EVER

    def lookup(self, _directory: int, name: bytes) -> pyfuse3.EntryAttributes | None:
        image = self._images.get(name)
        return None if image is None else image.root()

    def attributes(self, _inode: int) -> pyfuse3.EntryAttributes:
        return self._entry

    def readlink(self, _inode: int) -> bytes:
        raise pyfuse3.FUSEError(errno.EINVAL)

    def opendir(self, directory: int) -> None:
        pass

    def readdir(self, _directory: int, start: int, reply: Reply) -> None:
        entries = islice(self._images.items(), start, None)
        for position, (name, image) in enumerate(entries, start + 1):
            if not reply(name, image.root(), position):
                break

    def prepare(self) -> None:
        pass

    def open(self, _inode: int, _flags: int) -> OpenFile:
        raise pyfuse3.FUSEError(errno.EISDIR)


class _Operations(pyfuse3.Operations):
    """Answers the kernel: asks the part that an inode belongs to."""

    def __init__(self, parts: Sequence[_Part], images: Sequence[Image]) -> None:
        super().__init__()
        self._parts = parts
        self._firsts = [part.first for part in parts]
        self._images = images
        self._open_files: dict[int, OpenFile] = {}
        self._next_handle = 1
        self._done = fuse.done()
        self._read = parts[0]  # whose directories are read,
        self._ahead = False  # and whether it may have something to do ahead
        self._absent = pyfuse3.EntryAttributes()
        self._absent.st_ino = 0
        self._absent.entry_timeout = FOR_EVER

    def image_of(self, inode: int) -> Image:
        """The image that an inode is in."""
        served = [part for part in self._parts if isinstance(part, ServedImage)]
        return [part.image for part in served if part.first <= inode][-1]

    def _part(self, inode: int) -> _Part:
        return self._parts[bisect_right(self._firsts, inode) - 1]

    @_answered
    def lookup(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        # with a timeout where there is none: the kernel remembers that it is not there
        return self._part(parent).lookup(parent, name) or self._absent

    @_answered
    def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._part(inode).attributes(inode)

    @_answered
    def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._part(inode).readlink(inode)

    @_answered
    def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        self._read = self._part(inode)
        self._read.opendir(inode)
        self._ahead = True
        return inode

    def releasedir(self, fh: int) -> Awaitable[None]:  # type: ignore[override]
        return self._done  # nothing is kept by handle

    @_answered
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        self._read = self._part(fh)
        self._read.readdir(fh, start_id, functools.partial(pyfuse3.readdir_reply, token))
        self._ahead = True

    def prepare(self) -> None:
        """Do what the part whose directories are read can do ahead."""
        if self._ahead:  # it is asked after each request
            self._ahead = False
            self._read.prepare()

    @_answered
    def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        opened = self._part(inode).open(inode, flags)
        handle = self._next_handle
        self._next_handle += 1
        self._open_files[handle] = opened
        return pyfuse3.FileInfo(handle)  # which keeps what the kernel has of the file

    def release(self, fh: int) -> Awaitable[None]:  # type: ignore[override]
        del self._open_files[fh]
        return self._done

    @_guarded
    async def read(self, fh: int, off: int, size: int) -> Buffer:  # type: ignore[override]
        return await self._open_files[fh].read(off, size)

    @_guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = _FILESYSTEM_BLOCK
        size = sum(image.total_size for image in self._images)
        answer.f_blocks = -(-size // _FILESYSTEM_BLOCK)
        answer.f_files = sum(image.metadata.inode_count for image in self._images)
        answer.f_namemax = _NAME_MAX
        answer.f_bfree = answer.f_bavail = answer.f_ffree = answer.f_favail = 0
        return answer
