"""What runs inside an instance, as the kernel knows it.

Nothing of it is written down, so that a daemon that has just started knows as much: the process
that stays inside until all has ended holds locks on a file that only it could have locked first
(fimd/launch/entry.c), and whatever runs inside has the instance's own directory in its mount table.
"""

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fimd.launch.place import LOCK
from fimd.mounts.table import mounts

_FLOCK: Final = "hhqqi4x"
"""A struct flock: type, whence, start, length, process (fcntl(2))."""


@dataclass(frozen=True)
class Inside:
    """The inside of the instance whose directory this is."""

    directory: str

    @property
    def init(self) -> int | None:
        """The process that stays until all has ended; None where there is none, or not yet."""
        return self._locker(0)

    @property
    def has_program(self) -> bool:
        """Whether what the instance was started for still runs."""
        return self._locker(1) is not None

    @property
    def program(self) -> int | None:
        """The process that the instance was started for, None where it does not run."""
        init = self.init if self.has_program else None
        return next(iter(children(init)), None) if init is not None else None

    def processes(self) -> list[int]:
        """Return all processes inside, but the one that only waits for the others.

        Reads the mount table of each mount namespace of the machine that may be looked at.
        """
        shown: dict[str, bool] = {}
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):  # another user's, or it has ended
                namespace = os.readlink(f"/proc/{name}/ns/mnt")
                if namespace not in shown:
                    shown[namespace] = self.holds(int(name))
                if shown[namespace]:
                    found.append(int(name))
        init = self.init
        return sorted(pid for pid in found if pid != init)

    def holds(self, pid: int) -> bool:
        """Tell whether a process is inside. Raises OSError where it can't be looked at."""
        return any(mount.mount_point == self.directory for mount in mounts(pid))

    def _locker(self, byte: int) -> int | None:
        """Return the process that has locked a byte of the file, None where there is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(os.path.join(self.directory, LOCK), flags)
        except OSError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        finally:
            os.close(descriptor)
        return answer[4] if answer[0] != fcntl.F_UNLCK and answer[4] > 0 else None


def children(pid: int) -> list[int]:
    """Return the children of a process, the oldest first; none where it has ended."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
