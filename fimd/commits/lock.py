"""One writer per data directory, by a lock that dies with its holder."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fimd.base.errors import BusyError, DataDirectoryError

# Network filesystems lock only what is open for writing, which a directory never is.
_NO_DIRECTORY_LOCKS: Final = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP)
_LOCK_FILE: Final = "fimd.lock"


@contextmanager
def exclusive(data: str) -> Iterator[None]:
    """Hold a data directory's lock: a flock on the directory itself, or on a file in its tmp/.

    Raises BusyError where another process has it.
    """
    try:
        descriptor = _locked(data)
    except BlockingIOError:
        raise BusyError(f"another process is changing {data}: try again once it is done") from None
    except OSError as error:
        raise DataDirectoryError(f"{data} can't be locked: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(data: str) -> int:
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _NO_DIRECTORY_LOCKS:
            raise
    else:
        return descriptor
    path = os.path.join(data, "tmp", _LOCK_FILE)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
