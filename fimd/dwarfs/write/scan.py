"""A directory of this machine as entries, and its files' content, safe against what changes.

Nothing is opened but beneath the source directory's descriptor, no symbolic link is followed, and a
file whose identity, size or times are no longer those of the scan is an error that names it.
"""

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Self

from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.reader import LONGEST_PATH
from fimd.dwarfs.write.entries import Entry, PackError, Piece, printable, sort_key

Skip = Callable[[bytes, str], None]
"""Told the path of what is left out, and why."""

Keep = Callable[[Entry], bool]
"""Says whether an entry is packed; a directory that is not is left out with all it holds."""

_PIECE: Final = 1 << 20
_FIRST_PIECE: Final = 1 << 16  # the survey wants no more of most files
_SHOWN: Final = 200  # bytes of a path that is too long
_SMALLEST_HOLE: Final = 1 << 16  # a smaller one costs more in the metadata than as zeros


_State = tuple[int, int, int, int, int]
"""Device, inode, size, and the two times in nanoseconds: what tells that a file has changed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a file was when it was scanned; the `source` of the entries made here."""

    state: _State
    holes: tuple[tuple[int, int], ...] = ()  # offset and size


def _state(status: os.stat_result) -> _State:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class SourceTree:
    """A directory that is being packed. A context manager: it holds the directory open."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        on_skip: Skip | None = None,
        directory: int | None = None,
    ) -> None:
        """Open `path` where it is not open already, at a `directory` that then stays the caller's.

        `on_skip` is told what may not be read, which is then left out; without it, it is an error.
        """
        self.name = os.fspath(path)
        self._on_skip = on_skip
        self._is_own = directory is None
        try:
            if directory is None:
                directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PackError(f"cannot open the source: {error.strerror}", path=self.name) from error
        self._fd = directory
        self._beneath = Beneath(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beneath.close()
        if self._is_own:
            os.close(self._fd)

    def scan(
        self,
        only: Iterable[bytes] | None = None,
        *,
        keep: Keep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Entry]:
        """Every entry below the source and the source itself, or `only` some with their parents.

        Where the tree was made with `on_skip`, what may not be read is reported and left out.
        """
        wanted = partial(self._is_wanted, keep)
        found = self._walk(wanted, cancelled) if only is None else self._look_up(only, wanted)
        return [self._with_holes(entry) for entry in found]

    def read(self, entry: Entry) -> Generator[Piece]:
        """The content of a regular file as `ReadContent` describes it."""
        found: Found = entry.source
        buffer = memoryview(bytearray(min(entry.size, _FIRST_PIECE)))
        with self.open(entry) as fd:
            position = 0
            for offset, size in (*found.holes, (entry.size, 0)):
                while position < offset:
                    count = os.preadv(fd, [buffer[: offset - position]], position)
                    if not count:
                        break  # the check below says that the file was cut
                    yield buffer[:count]
                    position += count
                    if len(buffer) < min(entry.size - position, _PIECE):
                        buffer = memoryview(bytearray(min(entry.size - position, _PIECE)))
                if size:
                    yield size
                    position += size
            self._check_unchanged(entry, fd)

    def _walk(self, wanted: Keep, cancelled: Callable[[], bool] | None) -> Iterator[Entry]:
        root = _entry(b"", os.fstat(self._fd))
        yield root
        pending = [root]
        while pending:
            if cancelled is not None and cancelled():
                raise CancelledError("cancelled")
            directory = pending.pop()
            for entry in self._list(directory):
                if not wanted(entry):
                    continue
                if entry.is_directory:
                    pending.append(entry)
                yield entry

    def _list(self, directory: Entry) -> Iterator[Entry]:
        prefix = directory.path + b"/" if directory.path else b""
        with self.open(directory) as fd:
            for name in map(os.fsencode, os.listdir(fd)):
                path = prefix + name
                if len(path) > LONGEST_PATH:
                    raise PackError(
                        f"has a path of more than {LONGEST_PATH} bytes, which no image can hold",
                        path=f"{printable(path[:_SHOWN])}...",
                    )
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
                except OSError as error:
                    raise _failed(path, error) from error
                yield _entry(path, status, target)

    def _look_up(self, only: Iterable[bytes], wanted: Keep) -> Iterator[Entry]:
        paths = {b""}
        for path in only:
            parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
            if b".." in parts:
                raise PackError("the input list leads out of the source", path=printable(path))
            paths.update(b"/".join(parts[: depth + 1]) for depth in range(len(parts)))
        refused: set[bytes] = set()
        for path in sorted(paths, key=sort_key):
            if path.rpartition(b"/")[0] in refused:
                refused.add(path)
                continue
            try:
                parent, name = self._beneath.parent(path)
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                is_link = stat.S_ISLNK(status.st_mode)
                target = os.readlink(name, dir_fd=parent) if is_link else b""
            except OSError as error:
                raise _failed(path, error) from error
            entry = _entry(path, status, target)
            if not path or wanted(entry):
                yield entry
            else:
                refused.add(path)

    def _is_wanted(self, keep: Keep | None, entry: Entry) -> bool:
        """Whether to pack it; what this process may not read is reported, if that was asked."""
        if keep is not None and not keep(entry):
            return False
        if self._on_skip is None or not (entry.is_file or entry.is_directory):
            return True
        mode = os.R_OK | os.X_OK if entry.is_directory else os.R_OK
        try:
            parent, name = self._beneath.parent(entry.path)
        except OSError as error:
            raise _failed(entry.path, error) from error
        if os.access(name, mode, dir_fd=parent, effective_ids=True, follow_symlinks=False):
            return True
        self._on_skip(entry.path, "permission denied")
        return False

    def _with_holes(self, entry: Entry) -> Entry:
        """A file's entry with the holes that are worth keeping."""
        if entry.hole_bytes < _SMALLEST_HOLE:
            return replace(entry, hole_bytes=0) if entry.hole_bytes else entry
        with self.open(entry) as fd:
            holes = tuple(_holes(fd, entry.size))
        return replace(
            entry,
            hole_bytes=sum(size for _, size in holes),
            source=Found(entry.source.state, holes),
        )

    @contextmanager
    def open(self, entry: Entry) -> Iterator[int]:
        """A descriptor of the file or directory that an entry was made from, to read it by.

        Raises PackError where it is another by now, or can't be read.
        """
        flags = os.O_RDONLY | os.O_NONBLOCK | (os.O_DIRECTORY if entry.is_directory else 0)
        try:
            fd = self._beneath.open(entry.path, flags)
        except OSError as error:
            raise _failed(entry.path, error) from error
        try:
            self._check_unchanged(entry, fd)
            yield fd
        except OSError as error:
            raise _failed(entry.path, error) from error
        finally:
            os.close(fd)

    @staticmethod
    def _check_unchanged(entry: Entry, fd: int) -> None:
        if _state(os.fstat(fd)) != entry.source.state:
            raise PackError("changed while it was being packed", path=printable(entry.path))


def _entry(path: bytes, status: os.stat_result, target: bytes = b"") -> Entry:
    is_file = stat.S_ISREG(status.st_mode)
    return Entry(
        path,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        size=status.st_size if is_file else 0,
        rdev=status.st_rdev,
        target=target,
        identity=(status.st_dev, status.st_ino) if is_file and status.st_nlink > 1 else None,
        hole_bytes=max(0, status.st_size - status.st_blocks * 512) if is_file else 0,
        source=Found(_state(status)),
    )


def _holes(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """A file's holes as (offset, size), but for the small ones."""
    position = 0
    while position < size:
        hole = os.lseek(fd, position, os.SEEK_HOLE)
        try:
            position = os.lseek(fd, hole, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data after this hole
                raise
            position = size
        if position - hole >= _SMALLEST_HOLE:
            yield hole, position - hole


_REASONS: Final = {
    errno.ENOENT: "cannot be read: vanished while it was being packed",
    errno.ENOTDIR: "lies in what is no directory",
}


def _failed(path: bytes, error: OSError) -> PackError:
    reason = _REASONS.get(error.errno or 0) or f"cannot be read: {error.strerror}"
    return PackError(reason, path=printable(path) or ".")
