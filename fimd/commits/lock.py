"""One writer per data directory, by a lock that dies with its holder."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fimd.base.errors import BusyError, DataDirectoryError
from fimd.commits.opened import DIRECTORY, OpenData

# Network filesystems lock only what is open for writing, which a directory never is.
_NO_DIRECTORY_LOCKS: Final = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP)
_LOCK_FILE: Final = "fimd.lock"


@contextmanager
def exclusive(data: OpenData) -> Iterator[None]:
    """Hold a data directory's lock: a flock on the directory itself, or on a file in its tmp/.

    Raises BusyError where another process has it.
    """
    try:
        descriptor = _locked(data)
    except BlockingIOError:
        raise BusyError(
            f"another process is changing {data.path}: try again once it is done"
        ) from None
    except OSError as error:
        raise DataDirectoryError(f"{data.path} can't be locked: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(data: OpenData) -> int:
    """Lock by a descriptor of its own: a lock belongs to whatever opened the file."""
    descriptor = os.open(".", DIRECTORY, dir_fd=data.directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _NO_DIRECTORY_LOCKS:
            raise
    else:
        return descriptor
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(_LOCK_FILE, flags, 0o600, dir_fd=data.tmp)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
