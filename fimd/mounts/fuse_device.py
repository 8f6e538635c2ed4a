"""Why FUSE mounts fail on a machine, in words that help."""

import os
import re
import shutil
import stat
from pathlib import Path
from typing import Final

from fimd.mounts.table import below

CONFIGURATION: Final = Path("/etc/fuse.conf")
DEVICE: Final = "/dev/fuse"
_NUMBER: Final = os.makedev(10, 229)  # Documentation/admin-guide/devices.txt of the kernel
_MOST_MOUNTS: Final = 1000
"""Where the configuration says nothing, see mount.fuse3(8)."""


def missing() -> str | None:
    """Return what FUSE lacks here and what to do about it, None where nothing is seen to lack."""
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"there is no {DEVICE}: load the kernel's fuse module (modprobe fuse)"
    except PermissionError:
        return f"{DEVICE} may not be opened by this user: have its mode set to 0666"
    except OSError as error:
        return f"{DEVICE} can't be opened ({error.strerror}): load the kernel's fuse module"
    facts = os.fstat(descriptor)
    os.close(descriptor)
    if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != _NUMBER:
        return f"{DEVICE} is not the FUSE device: make it anew (mknod {DEVICE} c 10 229)"
    if os.getuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is not installed: install the package fuse3"
    return None


def mounts() -> tuple[int, int | None]:
    """Return how many FUSE mounts there are, and how many plain users may have together.

    None is no limit. Both as fusermount3 finds them.
    """
    limit: int | None = _MOST_MOUNTS
    try:
        text = CONFIGURATION.read_text(errors="replace")
    except OSError:
        text = ""
    for found in re.finditer(r"^\s*mount_max\s*=\s*(-?\d+)", text, re.MULTILINE):
        limit = int(found[1])
    filesystems = (mount.filesystem for mount in below("/"))
    count = sum(name == "fuse" or name.startswith("fuse.") for name in filesystems)
    return count, None if limit == -1 else limit


def obstacle() -> str | None:
    """Return why a mount has just failed, as far as it can be seen; reads files: for a thread."""
    reason = missing()
    if reason is not None or os.getuid() == 0:
        return reason
    count, limit = mounts()
    if limit is None or count < limit:
        return None
    return (
        f"there are {count} FUSE mounts, and plain users may have {limit} together: end some "
        f"instances ('fimctl prune' unmounts what is idle), or have the administrator set "
        f"mount_max in {CONFIGURATION} higher"
    )
