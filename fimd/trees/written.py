"""Marks of deletions as they are written into an upper: devices 0:0, or files where there are none.

What all of them mean is said in fimd.trees.upper.
"""

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from fimd.base.abilities import REFUSALS
from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.write import Entry
from fimd.trees.marks import UNIONFS_DIRECTORIES
from fimd.trees.merged import is_whiteout
from fimd.trees.upper import OPAQUE_NAMES, WHITEOUT_PREFIX

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_marks(beneath: Beneath, deleted: set[bytes], *, by_files: bool) -> set[bytes] | None:
    """Mark paths as deleted where they are not yet; return the paths of the marks.

    Where the file system keeps no devices that is by files `.wh.NAME`, or not at all (None).
    """
    if _write_devices(beneath, deleted):
        return deleted
    if not by_files:
        return None
    written = _as_files(deleted)
    _write_files(beneath, written)
    return written


def remove_marks(beneath: Beneath, scanned: Iterable[Entry], keep: Callable[[bytes], bool]) -> None:
    """Remove devices 0:0, unless they are to be kept, and the marker files of fuse-overlayfs."""
    for entry in scanned:
        name = entry.path.rpartition(b"/")[2]
        if entry.path.partition(b"/")[0] in UNIONFS_DIRECTORIES:
            continue
        device = is_whiteout(entry.mode, entry.rdev)
        empty = entry.is_file and entry.size == 0
        marker = (device or empty) and (name in OPAQUE_NAMES or name.startswith(WHITEOUT_PREFIX))
        if (marker or device) and not keep(entry.path):
            with suppress(FileNotFoundError):
                parent, name = beneath.parent(entry.path)
                os.unlink(name, dir_fd=parent)


def _write_devices(beneath: Beneath, deleted: Iterable[bytes]) -> bool:
    """Make the devices that are missing; tell whether the file system keeps any."""
    for path in sorted(deleted):
        parent, name = beneath.parent(path)
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            return False
    return True


def _as_files(deleted: Iterable[bytes]) -> set[bytes]:
    """Return the paths of the files that stand for deletions."""
    parts = (path.rpartition(b"/") for path in deleted)
    return {directory + slash + WHITEOUT_PREFIX + name for directory, slash, name in parts}


def _write_files(beneath: Beneath, paths: Iterable[bytes]) -> None:
    for path in sorted(paths):
        with suppress(FileExistsError):
            os.close(beneath.open(path, _NEW, 0o644))
