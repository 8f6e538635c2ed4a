"""Placeholders: what a start makes in an image's tree for the mounts of a sandbox to lie on.

They stay, as FlatImage has it, but are no change of the image. What tells them is the time that
they are given, which a copy of a data directory keeps: who writes to one, or puts something into
one, gives it another time, and then it is the image's. Where a lower layer has something of that
name, a placeholder is there because it was deleted.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from fimd.dwarfs.write import Entry

_TIME: Final = 0x46494D * 1_000_000_000
"""Nanoseconds since 1970: a second in that year, for file systems that keep no parts of one."""


def make(path: str, directory: int, *, is_directory: bool) -> None:
    """Make a placeholder, and the directories above that are missing; their times stay.

    `path` is relative to an open `directory`, and without links. Raises OSError.
    """
    above, missing = os.path.dirname(path), [path]
    while not (present := _stat(above or ".", directory)):
        missing.append(above)
        above = os.path.dirname(above)
    for part in reversed(missing):
        with suppress(FileExistsError):  # another start was faster
            if part != path or is_directory:
                os.mkdir(part, 0o755, dir_fd=directory)
            else:
                new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(part, new, 0o644, dir_fd=directory))
    for part in missing:
        os.utime(part, ns=(_TIME, _TIME), dir_fd=directory, follow_symlinks=False)
    with suppress(PermissionError):  # of an owner who is nobody here
        times = (present.st_atime_ns, present.st_mtime_ns)
        os.utime(above or ".", ns=times, dir_fd=directory, follow_symlinks=False)


def _stat(path: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def placeholders(entries: Iterable[Entry]) -> set[bytes]:
    """Return the paths of those among the entries of an upper."""
    found = {entry.path for entry in entries if _may_be_one(entry)}
    for path in sorted((entry.path for entry in entries), reverse=True):
        if path not in found:  # what holds anything else is none; what it holds comes first
            found.discard(path.rpartition(b"/")[0])
    return found


def _may_be_one(entry: Entry) -> bool:
    mode = stat.S_IMODE(entry.mode) & ~stat.S_ISGID  # which one has of the directory above
    if entry.mtime_ns != _TIME or entry.path == b"":
        return False
    is_file = entry.is_file and entry.size == 0 and mode == 0o644 and entry.identity is None
    return is_file or (entry.is_directory and mode == 0o755)
