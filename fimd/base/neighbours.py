"""This user's other runtime trees: where a daemon was told of another place for one.

What lies in one is as much out of a program's reach as the daemon's own. The usual places are
known; others are found by their daemons, which listen, and have the tree open for as long as they
live (RuntimeTree.hold).
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from fimd.base.namespaces import is_confined
from fimd.base.places import DEFAULT_GLOBAL, runtime_global

_LOCKS: Final = "/proc/locks"
_SOCKETS: Final = "/proc/net/unix"
_LISTENING: Final = re.compile(
    r"[0-9a-f]+: [0-9A-F]+ [0-9A-F]+ 0001[0-9A-F]{4} [0-9A-F]+ [0-9A-F]+ +[0-9]+ "
    r"(?:/proc/self/fd/[0-9]+/bus\.([0-9]{1,10})\n|/)"
)
"""A listening socket (__SO_ACCEPTCON of linux/net.h, in the flags), as proc(5) has it, with the
process where the name is what a daemon's was bound by: see fimd.service.sockets."""
_MOST: Final = 256
"""How many processes are looked at: names of sockets are anybody's to make."""


def other_trees(own: str) -> list[str]:
    """Return the trees that are there, without links, but for a daemon's `own`."""
    name = os.path.join("app", f"u{os.getuid()}")
    places = [os.path.join(base, name) for base in (DEFAULT_GLOBAL, runtime_global()) if base]
    found = [os.path.realpath(path) for path in places if _is_own(path)]
    found += _open_in(_daemons(f"/{name}/bus"), f"/{name}")
    return [path for path in dict.fromkeys(found) if path != os.path.realpath(own)]


def _is_own(path: str) -> bool:
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _open_in(pids: set[int], end: str) -> Iterator[str]:
    """Yield the directories with such an end that processes of this user have open."""
    for pid in islice(sorted(pids), _MOST):
        with suppress(OSError):  # it is another user's, or has ended
            if os.stat(f"/proc/{pid}").st_uid != os.getuid() or is_confined(pid):
                continue
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                path = os.readlink(descriptor.path)
                if path.endswith(end) and os.path.samefile(path, descriptor.path):
                    yield path


def _daemons(socket: str) -> set[int]:
    """Return processes that may be others' daemons, or are other programs."""
    pids: set[int] = set()
    by_systemd = False
    with open(_SOCKETS, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            found = _LISTENING.match(line)
            if found and found[1]:
                pids.add(int(found[1]))
            elif found:
                by_systemd = by_systemd or line.endswith(f"{socket}\n")
    if by_systemd:
        pids |= _holders()
    return pids - {os.getpid()}


def _holders() -> set[int]:
    """Return the processes that share a lock of a whole file (proc(5)).

    The kernel takes a hundredth of a second for it, in which all other locks wait.
    """
    with open(_LOCKS, encoding="ascii") as file:
        locks = [line.split() for line in file]
    return {int(words[4]) for words in locks if words[1] == "FLOCK" and words[3] == "READ"} - {-1}
