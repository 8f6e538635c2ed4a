"""An image as an open file: opened without surprises, read within bounds, changed by one at a time.

The library works on file descriptors and never on the file position, so one descriptor may serve
several readers.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import (
    BusyImageError,
    DamagedImageError,
    ImageError,
    NoSpaceError,
    NotAnImageError,
    ReadOnlyImageError,
)

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY)
POLL_SECONDS: Final = 0.02

_names: Final[dict[int, str]] = {}
"""What messages call the files that `open_image` has open: not every process has a /proc."""


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str], *, writable: bool = False) -> Iterator[int]:
    """A descriptor of the regular file at `path`, closed on leaving.

    Raises ReadOnlyImageError where writing is not allowed, NotAnImageError where it is no regular
    file, and ImageError where it cannot be opened at all.
    """
    # Without O_NONBLOCK, opening a FIFO would wait for its other end.
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _open_error(path, error, writable=writable) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotAnImageError(f"{Path(path)} is not a regular file, so it is no image")
        _names[fd] = str(Path(path))
        yield fd
    finally:
        _names.pop(fd, None)
        os.close(fd)


def _open_error(
    path: str | os.PathLike[str], error: OSError | ValueError, *, writable: bool
) -> ImageError:
    if isinstance(error, ValueError):
        return NotAnImageError(f"{path!r} is not a file name: {error}")
    if error.errno == errno.EISDIR:
        return NotAnImageError(f"{Path(path)} is a directory, not an image")
    if writable and error.errno in UNWRITABLE:
        return ReadOnlyImageError(
            f"{Path(path)} cannot be changed ({error.strerror}): make it writable, or use a copy"
        )
    return ImageError(f"{Path(path)} cannot be opened: {error.strerror}")


def name_of(fd: int) -> str:
    """The path by which messages call the open file."""
    if fd in _names:
        return _names[fd]
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"


def size_of(fd: int) -> int:
    """Bytes in the open file."""
    return os.fstat(fd).st_size


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Up to `size` bytes at `offset`, fewer only at the end of the file."""
    parts = []
    try:
        while size > 0 and (part := os.pread(fd, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
    except OSError as error:
        raise ImageError(
            f"{name_of(fd)} cannot be read at offset {offset}: {error.strerror}"
        ) from error
    return b"".join(parts)


def read_exactly(fd: int, offset: int, size: int, what: str) -> bytes:
    """`size` bytes at `offset`. Raises DamagedImageError where the file ends before."""
    data = read_at(fd, offset, size)
    if len(data) < size:
        raise DamagedImageError(
            f"{name_of(fd)} ends at offset {offset + len(data)}, inside {what}: "
            "it is incomplete, copy or download it again"
        )
    return data


def write_at(fd: int, offset: int, data: bytes) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    with write_errors(fd):
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written


def sync(fd: int) -> None:
    """Return once what was written is on the disk."""
    with write_errors(fd):
        os.fsync(fd)


@contextlib.contextmanager
def write_errors(fd: int) -> Iterator[None]:
    """Turn what the system says about writing to `fd` into the library's errors."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoSpaceError(
                f"no space left for {name_of(fd)} ({error.strerror}): free some and try again"
            ) from error
        raise ImageError(f"{name_of(fd)} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def exclusive(fd: int, wait: float = 0.0) -> Iterator[None]:
    """Hold the image's writer lock: a flock on the file, which dies with its holder.

    Waits up to `wait` seconds, then raises BusyImageError; ReadOnlyImageError where `fd` is not
    open for writing. Blocks, so it is for a worker thread.
    """
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise ReadOnlyImageError(f"{name_of(fd)} is not open for writing")
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BusyImageError(
                    f"another process is changing {name_of(fd)}: try again once it is done"
                ) from None
            time.sleep(POLL_SECONDS)
        except OSError as error:
            raise ImageError(f"{name_of(fd)} cannot be locked: {error.strerror}") from error
    try:
        if os.fstat(fd).st_nlink == 0:
            raise BusyImageError(f"{name_of(fd)} was replaced meanwhile: open it again")
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
