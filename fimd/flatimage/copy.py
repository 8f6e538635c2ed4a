"""Copying bytes between files, in pieces, so that it can be watched and stopped."""

import errno
import os
from collections.abc import Callable
from typing import Final

from .errors import CancelledError, ImageError
from .file import name_of, read_at, write_at, write_errors

PIECE: Final = 8 << 20
# The kernel cannot copy between these two files itself.
NOT_BY_KERNEL: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all, now and then."""

Cancelled = Callable[[], bool]
"""Asked now and then whether to stop."""


def ignore_progress(_done: int, _total: int) -> None:
    """For a caller who does not want to know."""


def never_cancelled() -> bool:
    """For a caller who never stops."""
    return False


def copy_range(
    source: int,
    source_offset: int,
    target: int,
    target_offset: int,
    size: int,
    progress: Progress = ignore_progress,
    cancelled: Cancelled = never_cancelled,
) -> None:
    """Copy `size` bytes between two open files, leaving their positions alone.

    Raises CancelledError, NoSpaceError, or ImageError where the source ends early; what was copied
    until then is the caller's to remove.
    """
    done = 0
    by_kernel = True
    while done < size:
        if cancelled():
            raise CancelledError(f"copying to {name_of(target)} was cancelled")
        count = min(PIECE, size - done)
        copied = 0
        if by_kernel:
            copied = _kernel_copy(source, source_offset + done, target, target_offset + done, count)
            by_kernel = copied > 0
        if not by_kernel:
            data = read_at(source, source_offset + done, count)
            if not data:
                raise ImageError(
                    f"{name_of(source)} ends at offset {source_offset + done}, {size - done} bytes "
                    "before it should: something is changing it, try again once that is done"
                )
            write_at(target, target_offset + done, data)
            copied = len(data)
        done += copied
        progress(done, size)


def _kernel_copy(source: int, source_at: int, target: int, target_at: int, count: int) -> int:
    """Bytes that the kernel copied; 0 where it cannot, or where the source ends."""
    with write_errors(target):
        try:
            return os.copy_file_range(source, target, count, source_at, target_at)
        except OSError as error:
            if error.errno in NOT_BY_KERNEL:
                return 0
            raise
