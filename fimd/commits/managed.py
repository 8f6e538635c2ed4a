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

_RECORD: Final = "fimd-squash-"
_SQUASHED: Final = "fimd-squashed-"
_LONGEST: Final = 1 << 20


def replace_managed(file: NewFile, data: str, names: list[str]) -> str:
    """Publish a file of the data directory's tmp/ in the place of managed layers, base first.

    Returns the new layer's path. For the holder of the data directory's lock.
    """
    tmp, layers = os.path.join(data, "tmp"), os.path.join(data, "layers")
    if os.stat(tmp).st_dev != os.stat(layers).st_dev:
        raise UnsupportedError(
            f"{layers} is on another filesystem than {tmp}: they can't be squashed there"
        )
    number = secrets.token_hex(8)
    squashed = os.path.join(tmp, _SQUASHED + number)
    record = os.path.join(tmp, _RECORD + number)
    into = os.path.join(layers, names[-1])
    file.publish(os.path.basename(squashed))
    try:
        facts = {"inode": os.stat(squashed).st_ino, "into": names[-1], "remove": names[:-1]}
        _write(record, facts)
        os.replace(squashed, into)
    except BaseException:
        for path in (squashed, record):
            with suppress(FileNotFoundError):
                os.unlink(path)
        raise
    finish_replacing(data)
    return into


def finish_replacing(data: str) -> int:
    """Do what is left to do after interrupted squashes; return how many layers were removed."""
    tmp, layers = os.path.join(data, "tmp"), os.path.join(data, "layers")
    removed = 0
    for name in sorted(os.listdir(tmp)):
        path = os.path.join(tmp, name)
        if name.startswith(_RECORD):
            removed += _finish(path, layers)
            os.unlink(path)
        elif name.startswith(_SQUASHED):
            os.unlink(path)
    return removed


def _finish(record: str, layers: str) -> int:
    removed = 0
    with suppress(OSError, ValueError, KeyError, TypeError):  # a record half written means nothing
        with open(record, "rb") as file:
            facts = json.loads(file.read(_LONGEST))
        into = os.path.join(layers, os.path.basename(facts["into"]))
        if os.stat(into).st_ino != facts["inode"]:
            return 0
        for name in facts["remove"]:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(layers, os.path.basename(name)))
                removed += 1
    return removed


def _write(path: str, facts: dict[str, object]) -> None:
    with open(path, "x") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
