"""A data directory as a whole: removed, or copied. In a jail, in the user's namespace.

Root inside gives files to others, and then they are of ids that are the user's in the namespace
alone: neither rm nor cp can do it.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from fimd.base.errors import DataDirectoryError
from fimd.base.removal import empty_directory
from fimd.commits.copied import fold
from fimd.commits.lock import exclusive
from fimd.commits.opened import PARTS, OpenData
from fimd.commits.work import Work
from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.write import Entry, SourceTree
from fimd.dwarfs.write.entries import printable

_WORK: Final = b"work"
_KEPT_WORK: Final = (b"work", b"work/.overlay")
"""What is of use elsewhere: which overlay the upper was used by (fimd.overlays.adapt)."""
_TEMPORARY: Final = b"tmp/fimd-"
_ROOT: Final = b"root"
_FLATIMAGES: Final = "recipes"
"""What FlatImage has in a data directory as well."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_NO_ATTRIBUTES: Final = (errno.ENOTSUP, errno.EPERM, errno.ENODATA)


def remove(data: OpenData, parent: int) -> None:
    """Remove a data directory, which lies in the open directory `parent`.

    Raises DataDirectoryError where something has to stay; and before anything is removed where it
    holds what is none of its parts: any directory may be named for one, also a home.
    """
    others = set(os.listdir(data.directory)) - {*PARTS, _FLATIMAGES}
    if others:
        raise DataDirectoryError(
            f"{data.path} is not removed, since it holds {printable(os.fsencode(min(others)))}, "
            "which is no part of a data directory: remove what fimd has made there by hand"
        )
    with exclusive(data):
        try:
            upper = data.open_upper()
            try:
                empty_directory(upper)  # which is elsewhere where FlatImage 1.x made it
            finally:
                os.close(upper)
            empty_directory(data.directory)
            os.rmdir(os.path.basename(data.path), dir_fd=parent)
        except OSError as error:
            raise DataDirectoryError(
                f"{data.path} can't be removed as a whole ({error.strerror}): what stays in it is "
                "another user's, or mounted there"
            ) from error


def copy(data: OpenData, target: int, work: Work) -> None:
    """Copy a data directory into an open, empty one, with owners, modes, times and attributes.

    What overlays and commits had there for themselves is left out. Raises PackError or OSError;
    then the target is empty again.
    """
    with exclusive(data), ExitStack() as stack:
        fold(data)
        top = stack.enter_context(SourceTree(data.path, directory=data.directory))
        upper = data.open_upper()
        stack.callback(os.close, upper)
        root = stack.enter_context(SourceTree(data.root, directory=upper))

        def is_wanted(entry: Entry) -> bool:
            first = entry.path.partition(b"/")[0]
            if entry.path.startswith(_TEMPORARY) or first == _ROOT:
                return False
            return first != _WORK or entry.path in _KEPT_WORK

        trees = [(top, b"", top.scan(keep=is_wanted, cancelled=work.cancelled))]
        trees.append((root, _ROOT, root.scan(cancelled=work.cancelled)))
        total = sum(entry.size for _, _, entries in trees for entry in entries)
        copied = _Copy(target, work.phase("copy"), total, work)
        try:
            for tree, prefix, entries in trees:
                copied.add(tree, prefix, entries)
            copied.finish()
        except BaseException:
            empty_directory(target)
            raise


class _Copy:
    """Files that are made anew below a directory."""

    def __init__(
        self, top: int, progress: Callable[[int, int], None], total: int, work: Work
    ) -> None:
        self._top = top
        self._progress = progress
        self._total = total
        self._done = 0
        self._work = work
        self._beneath = Beneath(top)
        self._directories: list[tuple[SourceTree, Entry, bytes]] = []
        self._names: dict[object, bytes] = {}

    def add(self, tree: SourceTree, prefix: bytes, entries: Sequence[Entry]) -> None:
        """Make these entries of a tree, each below `prefix`."""
        for entry in sorted(entries, key=lambda entry: entry.path.split(b"/")):
            self._work.check()
            path = b"/".join(part for part in (prefix, entry.path) if part)
            if entry.is_directory:
                if path:
                    parent, name = self._beneath.parent(path)
                    os.mkdir(name, 0o700, dir_fd=parent)
                self._directories.append((tree, entry, path))
            elif entry.identity in self._names:
                self._link(self._names[entry.identity], path)
            else:
                self._make(tree, entry, path)
                if entry.identity is not None:
                    self._names[entry.identity] = path

    def finish(self) -> None:
        """Give directories what making files in them would change."""
        for tree, entry, path in reversed(self._directories):
            if path:
                self._finish(tree, entry, path)
        self._beneath.close()

    def _link(self, present: bytes, path: bytes) -> None:
        lent, old = self._beneath.parent(present)
        source = os.dup(lent)
        try:
            parent, name = self._beneath.parent(path)
            os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _make(self, tree: SourceTree, entry: Entry, path: bytes) -> None:
        parent, name = self._beneath.parent(path)
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.target, name, dir_fd=parent)
        elif not entry.is_file:
            try:
                os.mknod(name, entry.mode & ~0o7777 | 0o600, entry.rdev, dir_fd=parent)
            except PermissionError:
                self._work.note(f"{printable(path)} is left out: only root makes devices")
                return
        else:
            with os.fdopen(self._beneath.open(path, _NEW, 0o600), "wb", buffering=0) as file:
                for piece in tree.read(entry):
                    self._write(file.fileno(), piece)
                os.ftruncate(file.fileno(), entry.size)
        self._finish(tree, entry, path)

    def _write(self, descriptor: int, piece: object) -> None:
        if isinstance(piece, int):
            os.lseek(descriptor, piece, os.SEEK_CUR)
            self._done += piece
            return
        assert isinstance(piece, bytes | bytearray | memoryview)
        left = memoryview(piece)
        while left:
            left = left[os.write(descriptor, left) :]
        self._done += len(piece)
        self._progress(self._done, self._total)

    def _finish(self, tree: SourceTree, entry: Entry, path: bytes) -> None:
        """Give what was made its owner, mode, attributes and times."""
        parent, name = self._beneath.parent(path)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)
        if entry.is_file or entry.is_directory:
            flags = os.O_RDONLY | (os.O_DIRECTORY if entry.is_directory else 0)
            descriptor = self._beneath.open(path, flags)
            try:
                with tree.open(entry) as source:
                    _copy_attributes(source, descriptor)
            finally:
                os.close(descriptor)
        parent, name = self._beneath.parent(path)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _copy_attributes(source: int, target: int) -> None:
    """Copy extended attributes, as far as the file system, and this process, may have them."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
