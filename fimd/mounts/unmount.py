"""Detaching FUSE mounts, in bounded time whatever state they are in."""

import asyncio
import errno
import os
from typing import Final

from fimd.dwarfs.fusermount import unmount_command
from fimd.errors import MountError
from fimd.mounts.process import CommandError, run
from fimd.mounts.table import below

_TRIES: Final = 20
_PAUSE: Final = 0.05
"""Seconds between two tries."""


async def detach(mount_point: str, *, seconds: float = 10.0) -> None:
    """Take a FUSE mount out of the tree at once; what still uses it keeps being served.

    The kernel ends the filesystem's connection with its last user, and its process then leaves.
    Raises MountError where the mount stays.
    """
    try:
        await run(unmount_command(mount_point), seconds=seconds)
    except CommandError as error:
        if below(mount_point):
            raise MountError(f"{mount_point} can't be unmounted: {error}") from error


async def clear(mount_point: str) -> None:
    """Detach what is mounted there, if anything is, and remove the directory.

    A process that was killed, or whose daemon was, may be mounting at this very moment; it unmounts
    when it finds that nobody waits for it. Raises MountError where the mount stays.
    """
    for _ in range(_TRIES):
        if await asyncio.to_thread(below, mount_point):
            await detach(mount_point)
        try:
            remove_directory(mount_point)
        except MountError:
            await asyncio.sleep(_PAUSE)
        else:
            return
    raise MountError(f"{mount_point} is mounted again and again")


def remove_directory(path: str) -> None:
    """Remove an empty directory that was a mount point; it is no error if it is gone already."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise MountError(f"{path} is still a mount point") from error
        raise
