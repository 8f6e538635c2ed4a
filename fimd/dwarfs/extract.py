"""An image's tree written into a directory, with every attribute that the user may set.

Everything is reached by descriptors from the destination on, one name at a time and never through a
link, so an image cannot write anywhere else. Files are filled in the order of the blocks that hold
them, so that no block is decompressed twice for long.
"""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import itemgetter
from typing import Final

from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE, Attributes

Progress = Callable[[int, int], None]
"""Called with the bytes of files that are written and the bytes in all."""

Skip = Callable[[bytes, OSError], None]
"""Called with the path of what could not be made, and why."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_AHEAD: Final = 2  # blocks
_WRITE_SIZE: Final = 1 << 20


def extract(
    image: Image,
    destination: str | os.PathLike[str],
    *,
    owners: bool | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_skip: Skip | None = None,
) -> None:
    """Write the tree below `destination`, which is made where it is not there.

    Modes, times, hardlinks, devices and holes are restored, owners where `owners` says so (by
    default: for root). A name that exists already is an error. What the user may not make, such as
    devices, is told to `on_skip`, or raised without one. Raises DwarfsError, OSError, and
    CancelledError soon after `cancelled` says so; what was written until then stays.
    """
    with suppress(FileExistsError):
        os.mkdir(destination, 0o700)
    # the destination itself may be named by a link: it is what the caller said
    root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    task = _Extraction(image, root, os.geteuid() == 0 if owners is None else owners)
    try:
        task.cancelled = cancelled or (lambda: False)
        task.progress = progress or (lambda _done, _total: None)
        task.on_skip = on_skip or _raise
        task.make_tree()
        task.fill_files()
        task.finish_directories()
    finally:
        task.close()
        os.close(root)


def _raise(_path: bytes, error: OSError) -> None:
    raise error


class _Extraction:
    """One run: what has been made, and what is still to be filled."""

    def __init__(self, image: Image, root: int, owners: bool) -> None:
        self._image = image
        self._beneath = Beneath(root)
        self._owners = owners
        self._directories: list[tuple[bytes, Attributes]] = []
        self._files: list[tuple[int, bytes, Attributes]] = []  # by first block
        self.cancelled: Callable[[], bool]
        self.progress: Progress
        self.on_skip: Skip

    def make_tree(self) -> None:
        """Directories, links, special files, and the files, still empty."""
        linked: dict[int, bytes] = {}
        for path, attributes in self._image.walk():
            self._check_cancelled()
            if not path:
                self._directories.append((path, attributes))
                continue
            try:
                self._make(path, attributes, linked)
            except OSError as error:
                error.filename = error.filename or path
                self.on_skip(path, error)

    def fill_files(self) -> None:
        """The files' content and attributes, in the order of their first blocks."""
        self._files.sort(key=itemgetter(0))
        blocks = list(dict.fromkeys(block for block, _, _ in self._files if block != HOLE))
        following = {block: blocks[i + 1 : i + 1 + _READ_AHEAD] for i, block in enumerate(blocks)}
        total, done = sum(attributes.size for _, _, attributes in self._files), 0
        with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="extract") as pool:
            for block, path, attributes in self._files:
                for ahead in following.pop(block, ()):
                    pool.submit(self._image.cache.get, ahead)
                parent, name = self._beneath.parent(path)
                fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    self._fill(fd, self._image.file_map(attributes.inode))
                    self._finish(fd, attributes)
                finally:
                    os.close(fd)
                done += attributes.size
                self.progress(done, total)

    def finish_directories(self) -> None:
        """The directories' attributes, which filling them would have changed."""
        for path, attributes in reversed(self._directories):
            fd = self._beneath.open(path, _DIRECTORY)
            try:
                self._finish(fd, attributes)
            finally:
                os.close(fd)

    def _make(self, path: bytes, attributes: Attributes, linked: dict[int, bytes]) -> None:
        mode = attributes.mode
        parent, name = self._beneath.parent(path)
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=parent)
            self._directories.append((path, attributes))
        elif stat.S_ISREG(mode):
            first = linked.setdefault(attributes.inode, path) if attributes.nlink > 1 else path
            if first != path:
                self._link(first, path)
                return
            os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=parent))
            extents = self._image.file_map(attributes.inode).extents
            block = next((extent.block for extent in extents if extent.block != HOLE), HOLE)
            self._files.append((block, path, attributes))
        elif stat.S_ISLNK(mode):
            os.symlink(self._image.readlink(attributes.inode), name, dir_fd=parent)
            self._finish_at(parent, name, attributes)
        else:
            os.mknod(name, stat.S_IFMT(mode) | 0o600, attributes.rdev, dir_fd=parent)
            self._finish_at(parent, name, attributes)

    def _link(self, first: bytes, path: bytes) -> None:
        directory, _, first_name = first.rpartition(b"/")
        first_parent = self._beneath.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            parent, name = self._beneath.parent(path)
            os.link(
                first_name,
                name,
                src_dir_fd=first_parent,
                dst_dir_fd=parent,
                follow_symlinks=False,
            )
        finally:
            os.close(first_parent)

    def _fill(self, fd: int, file: FileMap) -> None:
        os.truncate(fd, file.size)
        offset = 0
        for extent in file.extents:
            end = offset + extent.size
            if extent.block == HOLE:
                offset = end
            while offset < end:
                self._check_cancelled()
                data = self._image.read_map(file, offset, min(_WRITE_SIZE, end - offset))
                offset += os.pwrite(fd, data, offset)

    def _finish(self, fd: int, attributes: Attributes) -> None:
        if self._owners:
            os.fchown(fd, attributes.uid, attributes.gid)
        os.fchmod(fd, stat.S_IMODE(attributes.mode))  # after the owner, which clears setuid
        os.utime(fd, ns=(attributes.atime_ns, attributes.mtime_ns))

    def _finish_at(self, parent: int, name: bytes, attributes: Attributes) -> None:
        """The same for what cannot be opened; it was made just now, so the name is not a link."""
        if self._owners:
            os.chown(name, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(attributes.mode):
            os.chmod(name, stat.S_IMODE(attributes.mode), dir_fd=parent)
        times = (attributes.atime_ns, attributes.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def close(self) -> None:
        """Close what is kept open."""
        self._beneath.close()

    def _check_cancelled(self) -> None:
        if self.cancelled():
            raise CancelledError("the extraction was cancelled", path=self._image.source.name)
