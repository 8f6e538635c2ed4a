"""An image's tree written into a directory, with every attribute that the user may set.

Everything is reached by descriptors from the destination on, one name at a time and never through a
link, so an image cannot write anywhere else. Files are filled in the order of the blocks that hold
them, so that no block is decompressed twice for long.
"""

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from operator import itemgetter
from typing import Final

from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE, Attributes

Progress = Callable[[int, int], None]
"""Called with the bytes of files that are written and the bytes in all."""

Skip = Callable[[bytes, OSError], None]
"""Called with the path of what could not be made, and why."""

Owners = Callable[[Attributes], tuple[int, int]]
"""Returns the user and the group that something is to belong to."""

_Content = tuple[int, tuple[int, int]]
"""A file's first block, and the chunks that all files of its content have."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_AHEAD: Final = 2  # blocks
_WRITE_SIZE: Final = 1 << 20


def extract(
    image: Image,
    destination: str | os.PathLike[str] | int,
    *,
    owners: bool | Owners | None = None,
    wanted: Callable[[bytes], bool] | None = None,
    descriptors: int | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_skip: Skip | None = None,
) -> None:
    """Write the tree below `destination`, an open directory, or one that is made if it is missing.

    Modes, times, hardlinks, devices and holes are restored, owners where `owners` says so (by
    default: for root), or as it says; and of all paths only those that are `wanted`, whose
    directories are there or wanted too. `descriptors` is an open /proc/self/fd, for who has no
    /proc now. A name that exists already is an error. What the user may not make, such as devices,
    is told to `on_skip`, or raised without one. Raises DwarfsError, OSError, and CancelledError
    soon after `cancelled` says so; what was written until then stays.
    """
    if isinstance(destination, int):
        root = os.open(".", _DIRECTORY, dir_fd=destination)
    else:
        with suppress(FileExistsError):
            os.mkdir(destination, 0o700)
        # the destination itself may be named by a link: it is what the caller said
        root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if owners is None:
        owners = os.geteuid() == 0
    at = os.open("/proc/self/fd", os.O_PATH | _DIRECTORY) if descriptors is None else descriptors
    task = _Extraction(image, root, _recorded if owners is True else owners or None, at)
    try:
        task.wanted = wanted or (lambda _path: True)
        task.cancelled = cancelled or (lambda: False)
        task.progress = progress or (lambda _done, _total: None)
        task.on_skip = on_skip or _raise
        task.make_tree()
        task.fill_files()
        task.finish_directories()
    finally:
        task.close()
        if descriptors is None:
            os.close(at)
        os.close(root)


def _recorded(attributes: Attributes) -> tuple[int, int]:
    return attributes.uid, attributes.gid


def _raise(_path: bytes, error: OSError) -> None:
    raise error


class _Place:
    """A directory below the destination, reached from the one before by the way between the two.

    So a tree costs as many steps as it has directories, however deep they are. On the way up each
    must be the one that it was on the way down: whoever moves them meanwhile leads nowhere else.
    """

    def __init__(self, root: int) -> None:
        self._path = b""
        self._names: list[bytes] = []
        self._above: list[tuple[int, int]] = []  # device and inode
        self._fd = os.dup(root)

    def go(self, path: bytes) -> int:
        """The directory's descriptor, until the next call."""
        if path != self._path:
            names = path.split(b"/") if path else []
            self._path = b"/"  # no directory's, should one of the steps fail
            shared = 0
            for own, other in zip(self._names, names, strict=False):
                if own != other:
                    break
                shared += 1
            while len(self._names) > shared:
                self._step(b"..")
                self._names.pop()
                if self._identity() != self._above.pop():
                    raise OSError(errno.ESTALE, "a directory was moved while it was filled", path)
            for name in names[shared:]:
                above = self._identity()
                self._step(name)
                self._names.append(name)
                self._above.append(above)
            self._path = path
        return self._fd

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def _step(self, name: bytes) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=self._fd)
        os.close(self._fd)
        self._fd = fd

    def _identity(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino


class _Extraction:
    """One run: what has been made, and what is still to be filled."""

    def __init__(self, image: Image, root: int, owners: Owners | None, descriptors: int) -> None:
        self._image = image
        self._root = root
        self._owners = owners
        self._descriptors = descriptors
        self._directories: list[tuple[bytes, Attributes]] = []
        self._files: list[tuple[_Content, bytes, Attributes]] = []
        self._first_blocks: dict[tuple[int, int], int] = {}
        self._place = _Place(root)
        self._linked_place = _Place(root)
        self.wanted: Callable[[bytes], bool]
        self.cancelled: Callable[[], bool]
        self.progress: Progress
        self.on_skip: Skip

    def make_tree(self) -> None:
        """Directories, links, special files, and the files, still empty."""
        linked: dict[int, bytes] = {}
        for path, attributes in self._image.walk():
            self._check_cancelled()
            if not self.wanted(path):
                continue
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
        blocks = list(dict.fromkeys(block for (block, _), _, _ in self._files if block != HOLE))
        following = {block: blocks[i + 1 : i + 1 + _READ_AHEAD] for i, block in enumerate(blocks)}
        total, done = sum(attributes.size for _, _, attributes in self._files), 0
        copied: tuple[_Content, int] | None = None  # the content of the file before, and the file
        with (
            ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="extract") as pool,
            ExitStack() as last,
        ):
            for content, path, attributes in self._files:
                for ahead in following.pop(content[0], ()):
                    pool.submit(self._image.cache.get, ahead)
                parent, name = self._parent(path)
                fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    os.truncate(fd, attributes.size)
                    if copied and copied[0] == content:
                        self._copy(copied[1], fd)
                    else:
                        self._fill(fd, self._image.file_map(attributes.inode))
                        last.close()
                        copied = content, os.dup(fd)
                        last.callback(os.close, copied[1])
                    self._finish(fd, attributes)
                finally:
                    os.close(fd)
                done += attributes.size
                self.progress(done, total)

    def finish_directories(self) -> None:
        """The directories' attributes, which filling them would have changed."""
        for path, attributes in reversed(self._directories):
            if not path:
                self._finish(self._root, attributes)
                continue
            parent, name = self._parent(path)
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                self._finish(fd, attributes)
            finally:
                os.close(fd)

    def _make(self, path: bytes, attributes: Attributes, linked: dict[int, bytes]) -> None:
        mode = attributes.mode
        parent, name = self._parent(path)
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=parent)
            self._directories.append((path, attributes))
        elif stat.S_ISREG(mode):
            first = linked.setdefault(attributes.inode, path) if attributes.nlink > 1 else path
            if first != path:
                self._link(first, path)
                return
            os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=parent))
            self._files.append((self._content(attributes.inode), path, attributes))
        elif stat.S_ISLNK(mode):
            os.symlink(self._image.readlink(attributes.inode), name, dir_fd=parent)
            self._finish_at(parent, name, attributes)
        else:
            os.mknod(name, stat.S_IFMT(mode) | 0o600, attributes.rdev, dir_fd=parent)
            self._finish_at(parent, name, attributes)

    def _content(self, inode: int) -> "_Content":
        chunks = self._image.tree.content(inode)
        block = self._first_blocks.get(chunks)
        if block is None:
            extents = self._image.file_map(inode).extents
            block = next((extent.block for extent in extents if extent.block != HOLE), HOLE)
            self._first_blocks[chunks] = block
        return block, chunks

    def _link(self, first: bytes, path: bytes) -> None:
        directory, _, first_name = first.rpartition(b"/")
        parent, name = self._parent(path)
        os.link(
            first_name,
            name,
            src_dir_fd=self._linked_place.go(directory),
            dst_dir_fd=parent,
            follow_symlinks=False,
        )

    def _copy(self, source: int, fd: int) -> None:
        """Fill a file with the content of another one of its size, but for the holes."""
        offset, end = 0, os.fstat(source).st_size
        while offset < end:
            self._check_cancelled()
            try:
                offset = os.lseek(source, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # a hole to the end
            hole = os.lseek(source, offset, os.SEEK_HOLE)
            offset += os.pwrite(
                fd, os.pread(source, min(_WRITE_SIZE, hole - offset), offset), offset
            )

    def _fill(self, fd: int, file: FileMap) -> None:
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
        if self._owners is not None:
            os.fchown(fd, *self._owners(attributes))
        os.fchmod(fd, stat.S_IMODE(attributes.mode))  # after the owner, which clears setuid
        os.utime(fd, ns=(attributes.atime_ns, attributes.mtime_ns))

    def _finish_at(self, parent: int, name: bytes, attributes: Attributes) -> None:
        """The same for what cannot be opened; by now its name may be another's."""
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            own, at = str(held), self._descriptors
            if self._owners is not None:
                os.chown(own, *self._owners(attributes), dir_fd=at)
            if not stat.S_ISLNK(os.fstat(held).st_mode):
                os.chmod(own, stat.S_IMODE(attributes.mode), dir_fd=at)
            os.utime(own, ns=(attributes.atime_ns, attributes.mtime_ns), dir_fd=at)
        finally:
            os.close(held)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """A descriptor of the directory that holds `path`, until the next call, and the name."""
        directory, _, name = path.rpartition(b"/")
        return self._place.go(directory), name

    def close(self) -> None:
        """Close the directories that are open."""
        self._place.close()
        self._linked_place.close()

    def _check_cancelled(self) -> None:
        if self.cancelled():
            raise CancelledError("the extraction was cancelled", path=self._image.source.name)
