"""What a file system can keep beside names and bytes: exFAT, FAT and many network ones can't."""

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

REFUSALS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES)
"""What they say to it."""


def missing(directory: int) -> list[str]:
    """Return what can't be kept in an open directory, in words; it is tried there.

    Raises OSError where not even files can be made.
    """
    trials: dict[str, Callable[[str], bool]] = {
        "symbolic links": lambda name: _makes(os.symlink, "x", name, dir_fd=directory),
        "hard links": lambda name: _links(directory, name),
        "modes": lambda name: _keeps_mode(directory, name),
    }
    return [what for what, trial in trials.items() if not _tried(directory, trial)]


def _tried(directory: int, trial: Callable[[str], bool]) -> bool:
    name = f".fimd-trial-{secrets.token_hex(8)}"
    try:
        return trial(name)
    finally:
        for made in (name, f"{name}-2"):
            with suppress(FileNotFoundError):
                os.unlink(made, dir_fd=directory)


def _makes(make: Callable[..., None], *words: object, **options: int) -> bool:
    try:
        make(*words, **options)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        return False
    return True


def _make_file(directory: int, name: str) -> int:
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)


def _links(directory: int, name: str) -> bool:
    os.close(_make_file(directory, name))
    return _makes(os.link, name, f"{name}-2", src_dir_fd=directory, dst_dir_fd=directory)


def _keeps_mode(directory: int, name: str) -> bool:
    made = _make_file(directory, name)  # by its name a link might have been put in its place
    try:
        changed = _makes(os.fchmod, made, 0o640)
        return changed and stat.S_IMODE(os.fstat(made).st_mode) == 0o640
    finally:
        os.close(made)
