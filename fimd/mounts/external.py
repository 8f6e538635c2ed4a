"""Mounts served by an external program that stays in the foreground, in the user's namespace."""

import asyncio
import os
from collections.abc import Sequence
from typing import Final

from fimd.base.errors import MountError
from fimd.mounts import fuse_device
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process

_LAST_WORDS: Final = 1.0
"""Seconds that what a program said may take to arrive after its end."""


async def mount_by_command(
    argv: Sequence[str],
    *,
    serves: tuple[str, str],
    mount_point: str,
    namespace: Namespace,
    seconds: float,
    directory: str = "/",
    root: str = "",
) -> Process:
    """Start a FUSE program and wait until its mount is there.

    What it says is logged, with `serves`, a field like fim_layer and its value. `root` is to be its
    root directory, if it is to have another. Raises MountError, with what it said, where it ends or
    takes too long, and leaves nothing.
    """
    process, output = await namespace.spawn(
        argv, serves=serves, directory=directory, seconds=seconds, root=root
    )
    mounted = asyncio.create_task(
        namespace.wait_for(mount_point, mounted=True, seconds=seconds), name="mounted"
    )
    ended = asyncio.create_task(process.wait(), name="ended")
    try:
        await asyncio.wait((mounted, ended), return_when=asyncio.FIRST_COMPLETED)
        if not mounted.done():
            await output.ended(_LAST_WORDS)
            reason = await asyncio.to_thread(fuse_device.missing) or output.last
            name = os.path.basename(argv[0])
            raise MountError(f"{name} failed: {reason or 'it ended without a word'}")
        mounted.result()
    except BaseException:
        await process.stop()
        if namespace.below(mount_point):
            await namespace.unmount(mount_point)
        raise
    finally:
        for task in (mounted, ended):
            task.cancel()
        await asyncio.gather(mounted, ended, return_exceptions=True)
    return process
