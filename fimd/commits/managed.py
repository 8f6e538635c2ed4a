"""Putting one managed layer in the place of several, so that a crash leaves the old ones or it.

The new one takes the topmost's name in one step, and the others are removed after that. In between
stands a record of what is to be removed: whoever uses the directory next finishes it.
"""

import json
import os
import secrets
from contextlib import suppress
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.commits.newfile import NewFile
from fimd.commits.opened import OpenData

_RECORD: Final = "fimd-squash-"
_SQUASHED: Final = "fimd-squashed-"
_LONGEST: Final = 1 << 20


def replace_managed(file: NewFile, data: OpenData, names: list[str]) -> str:
    """Publish a file of the data directory's tmp/ in the place of managed layers, base first.

    Returns the new layer's path. For the holder of the data directory's lock.
    """
    if os.fstat(data.tmp).st_dev != os.fstat(data.layers).st_dev:
        raise UnsupportedError(
            f"the layers of {data.path} are on another filesystem than its temporary files: they "
            "can't be squashed there"
        )
    number = secrets.token_hex(8)
    squashed, record = _SQUASHED + number, _RECORD + number
    file.publish(squashed)
    try:
        inode = os.stat(squashed, dir_fd=data.tmp, follow_symlinks=False).st_ino
        facts = {"inode": inode, "into": names[-1], "remove": names[:-1]}
        _write(data.tmp, record, facts)
        os.replace(squashed, names[-1], src_dir_fd=data.tmp, dst_dir_fd=data.layers)
    except BaseException:
        for name in (squashed, record):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=data.tmp)
        raise
    finish_replacing(data)
    return os.path.join(data.path, "layers", names[-1])


def finish_replacing(data: OpenData) -> int:
    """Do what is left to do after interrupted squashes; return how many layers were removed."""
    removed = 0
    for name in sorted(os.listdir(data.tmp)):
        if name.startswith(_RECORD):
            removed += _finish(data, name)
            _remove(data.tmp, name)
        elif name.startswith(_SQUASHED):
            _remove(data.tmp, name)
    return removed


def _finish(data: OpenData, record: str) -> int:
    removed = 0
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    # a record half written means nothing
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        with open(os.open(record, flags, dir_fd=data.tmp), "rb") as file:
            facts = json.loads(file.read(_LONGEST))
        into = os.path.basename(facts["into"])
        found = os.stat(into, dir_fd=data.layers, follow_symlinks=False)
        if found.st_ino != facts["inode"]:
            return 0
        for name in facts["remove"]:
            with suppress(FileNotFoundError):
                os.unlink(os.path.basename(name), dir_fd=data.layers)
                removed += 1
    return removed


def _remove(directory: int, name: str) -> None:
    """Remove a record or a file; what else may have its name is no business of a squash."""
    with suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=directory)


def _write(directory: int, name: str, facts: dict[str, object]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, flags, 0o644, dir_fd=directory), "w") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    os.fsync(directory)
