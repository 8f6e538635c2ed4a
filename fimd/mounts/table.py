"""The kernel's mount table: what is mounted where, and news of its changes.

The daemon never looks into a FUSE mount: a stuck one would hang it. This table never hangs.
"""

import asyncio
import errno
import os
import re
import select
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from fimd.base.errors import MountError

MOUNTINFO: Final = "/proc/self/mountinfo"
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo (proc(5)); `device` is major:minor.

    `root` is the directory of the file system that is seen at the mount point.
    """

    device: str
    root: str
    mount_point: str
    filesystem: str
    source: str


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def parse(mountinfo: bytes) -> list[Mount]:
    """Read the lines of a mountinfo file, in the order of mounting."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(b" - ")
        head, tail = before.split(b" "), after.split(b" ")
        found.append(
            Mount(
                device=head[2].decode(),
                root=_unescape(head[3]),
                mount_point=_unescape(head[4]),
                filesystem=tail[0].decode(),
                source=_unescape(tail[1]),
            )
        )
    return found


def mounts(process: int | str = "self") -> list[Mount]:
    """Return what is mounted now, as a process sees it, in the order of mounting.

    Raises OSError; FileNotFoundError or ProcessLookupError where the process has ended.
    """
    try:
        with open(f"/proc/{process}/mountinfo", "rb") as file:
            return parse(file.read())
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # one that has ended and that nobody has waited for yet
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(process)) from error


def below(directory: str, process: int | str = "self") -> list[Mount]:
    """Return what is mounted at or under `directory` now, in the order of mounting.

    As this process sees it; or another one, and nothing where that has ended.
    """
    try:
        found = mounts(process)
    except OSError:
        if process == "self":
            raise
        return []
    prefix = directory.rstrip("/") + "/"
    return [
        mount
        for mount in found
        if mount.mount_point == directory or mount.mount_point.startswith(prefix)
    ]


class MountTable:
    """Waits for changes of the mount table, which the kernel announces as POLLPRI."""

    def __init__(self, pid: int | None = None) -> None:
        """Watch the mounts that this process sees, or another one."""
        path = MOUNTINFO if pid is None else f"/proc/{pid}/mountinfo"
        # each open file tells of a change once: one is for those who wait, one for those who ask
        self._watched = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._poll = select.epoll()
        self._poll.register(self._watched, select.EPOLLPRI | select.EPOLLERR | select.EPOLLET)
        self._changes = select.poll()
        self._changes.register(self._file, select.POLLPRI)
        self._changed = asyncio.Event()
        self._known: list[Mount] | None = None
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._on_change)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()
        self._watched.close()
        self._file.close()

    def _on_change(self) -> None:
        self._poll.poll(0)
        self._changed.set()
        self._changed = asyncio.Event()

    def mounts(self) -> list[Mount]:
        """Return what is mounted, in the order of mounting; read anew where it has changed."""
        if self._changes.poll(0) or self._known is None:
            self._file.seek(0)
            self._known = parse(self._file.readall())
        return self._known

    def points(self) -> set[str]:
        """Return every mount point."""
        return {mount.mount_point for mount in self.mounts()}

    async def wait_for(self, mount_point: str, *, mounted: bool, seconds: float) -> None:
        """Wait until something is mounted there, or nothing is.

        Raises MountError after that many seconds.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    changed = self._changed
                    if (mount_point in self.points()) is mounted:
                        return
                    await changed.wait()
        except TimeoutError:
            state = "mounted" if mounted else "unmounted"
            raise MountError(f"{mount_point} was not {state} within {seconds:g} s") from None
