"""One writer per data directory, by a lock that dies with its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fimd.errors import BusyError, DataDirectoryError


@contextmanager
def exclusive(data: str) -> Iterator[None]:
    """Hold a data directory's lock: a flock on the directory itself. Raises BusyError."""
    try:
        descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DataDirectoryError(f"{data} can't be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(f"another process is changing {data}: try again once it is done") from None
    finally:
        os.close(descriptor)
