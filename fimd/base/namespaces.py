"""What a process has of its own: users, processes, mounts, a root directory."""

import os
from typing import Final

_CONFINING: Final = ("user", "pid")


def is_confined(pid: int) -> bool:
    """Tell whether a process has users, processes or a root of its own: whether it is in a sandbox.

    Raises FileNotFoundError or ProcessLookupError where there is no such process.
    """
    try:
        return _has_own_root(pid) or not all(_is_shared(pid, kind) for kind in _CONFINING)
    except PermissionError:
        # A program with capabilities of its file's, as compositors have, shows its namespaces to
        # nobody; but everybody may read this, and no plain user has a mapping of all ids.
        return _facts(pid) != _facts("self")


def has_own_mounts(pid: int) -> bool:
    """Tell whether a process may see other files than this one does by the same names."""
    try:
        return _has_own_root(pid) or not _is_shared(pid, "mnt")
    except OSError:
        return True


def _has_own_root(pid: int) -> bool:
    root, own = os.stat(f"/proc/{pid}/root"), os.stat("/")
    return (root.st_dev, root.st_ino) != (own.st_dev, own.st_ino)


def _is_shared(pid: int, kind: str) -> bool:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino


def _facts(pid: int | str) -> tuple[str, int]:
    """Return how a process's user ids are mapped, and how deep its process namespace lies."""
    with open(f"/proc/{pid}/uid_map") as file:
        mapped = file.read()
    with open(f"/proc/{pid}/status") as file:
        [numbers] = (line for line in file if line.startswith("NSpid:"))
    return mapped, len(numbers.split())
