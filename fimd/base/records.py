"""What a later daemon needs to know of a mount or an instance, as small JSON files beside it.

They lie in the daemon's own part of the runtime tree, where no sandbox sees them. A crash can leave
none or an old one, never a part of one; what can't be read is taken for none. Even so whoever reads
one believes nothing that the kernel does not confirm.
"""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

_LARGEST: Final = 4 << 20
_UNFINISHED: Final = ".new"


def write(path: str, facts: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write a record in one step; with `durable` it is on the disk before it is in its place."""
    temporary = path + _UNFINISHED
    remove(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(facts, file, ensure_ascii=False)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def read(path: str) -> dict[str, Any] | None:
    """Read a record; None where there is none that makes sense."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            facts = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def remove_unfinished(directory: str) -> None:
    """Remove what a writer that was killed has left in a directory."""
    for name in os.listdir(directory):
        if name.endswith(_UNFINISHED):
            remove(os.path.join(directory, name))


def remove(path: str) -> None:
    """Remove a record, where it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
