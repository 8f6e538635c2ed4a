"""Detaching mounts, in bounded time whatever state they are in."""

import asyncio
import errno
import os
from contextlib import suppress
from typing import Final

from fimd.base.errors import MountError
from fimd.dwarfs.fusermount import unmount_command
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import CommandError, run
from fimd.mounts.table import below

_TRIES: Final = 20
_PAUSE: Final = 0.05
"""Seconds between two tries."""


async def detach(mount_point: str, *, seconds: float = 10.0) -> None:
    """Take a FUSE mount out of the host's tree at once, as its user may by fusermount3.

    Only what others have mounted is there: FlatImage, and fimd before it had a namespace. Raises
    MountError where the mount stays.
    """
    try:
        await run(unmount_command(mount_point), seconds=seconds)
    except CommandError as error:
        if await asyncio.to_thread(below, mount_point):
            raise MountError(f"{mount_point} can't be unmounted: {error}") from error


async def clear(namespace: Namespace, mount_point: str) -> None:
    """Detach what is mounted there in the namespace, if anything is, and remove the directory.

    A process that was killed, or whose daemon was, may be mounting at this very moment; it unmounts
    when it finds that nobody waits for it. What is mounted there on the host stays, and so does the
    directory: it is a former daemon's. Raises MountError where the mount stays.
    """
    for _ in range(_TRIES):
        with suppress(MountError):  # what the namespace has copied goes with the directory
            if namespace.below(mount_point):
                await namespace.unmount(mount_point)
        try:
            remove_directory(mount_point)
        except MountError:
            if await asyncio.to_thread(below, mount_point):
                return
        else:
            return
        await asyncio.sleep(_PAUSE)
    raise MountError(f"{mount_point} is mounted again and again")


def remove_directory(path: str) -> None:
    """Remove an empty directory that was a mount point; it is no error if it is gone already.

    Whatever is mounted there in another namespace goes with it.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise MountError(f"{path} is still a mount point") from error
        raise
