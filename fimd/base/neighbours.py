"""This user's other runtime trees: where a daemon was told of another place for one.

What lies in one is as much out of a program's reach as the daemon's own. The usual places are
known, and of all others the kernel: a daemon has its tree locked for as long as it lives
(RuntimeTree.hold).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fimd.base.namespaces import is_confined
from fimd.base.places import DEFAULT_GLOBAL, runtime_global

_LOCKS: Final = "/proc/locks"


def other_trees(own: str) -> list[str]:
    """Return the trees that are there, without links, but for a daemon's `own`."""
    name = os.path.join("app", f"u{os.getuid()}")
    places = [os.path.join(base, name) for base in (DEFAULT_GLOBAL, runtime_global()) if base]
    found = [os.path.realpath(path) for path in places if _is_own(path)]
    found += _locked(f"/{name}")
    return [path for path in dict.fromkeys(found) if path != os.path.realpath(own)]


def _is_own(path: str) -> bool:
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _locked(end: str) -> Iterator[str]:
    """Yield the directories with such an end that processes of this user have locked."""
    for pid in _holders():
        with suppress(OSError):  # it is another user's, or has ended
            if os.stat(f"/proc/{pid}").st_uid != os.getuid() or is_confined(pid):
                continue
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                path = os.readlink(descriptor.path)
                if path.endswith(end) and os.path.samefile(path, descriptor.path):
                    yield path


def _holders() -> set[int]:
    """Return the processes that share a lock of a whole file (proc(5))."""
    with open(_LOCKS, encoding="ascii") as file:
        locks = [line.split() for line in file]
    return {int(words[4]) for words in locks if words[1] == "FLOCK" and words[3] == "READ"} - {
        os.getpid(),
        -1,
    }
