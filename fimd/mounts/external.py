"""Mounts served by an external program that stays in the foreground."""

import asyncio
import os
from collections.abc import Sequence

from fimd.errors import MountError
from fimd.mounts import fuse_device
from fimd.mounts.process import Process
from fimd.mounts.table import MountTable
from fimd.mounts.unmount import detach


async def mount_by_command(
    argv: Sequence[str],
    *,
    mount_point: str,
    table: MountTable,
    seconds: float,
    directory: str | None = None,
) -> Process:
    """Start a FUSE program and wait until its mount is there.

    Raises MountError, with what it said, where it ends or takes too long, and leaves nothing.
    """
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    try:
        process = Process.spawn(argv, directory=directory, errors=errors)
        mounted = asyncio.create_task(
            table.wait_for(mount_point, mounted=True, seconds=seconds), name="mounted"
        )
        ended = asyncio.create_task(process.wait(), name="ended")
        try:
            await asyncio.wait((mounted, ended), return_when=asyncio.FIRST_COMPLETED)
            if not mounted.done():
                said = os.pread(errors, 4096, 0).decode(errors="replace").strip()
                reason = await asyncio.to_thread(fuse_device.obstacle) or _last_line(said)
                raise MountError(f"{os.path.basename(argv[0])} failed: {reason}")
            mounted.result()
        except BaseException:
            await process.stop()
            if mount_point in table.points():
                await detach(mount_point)
            raise
        finally:
            for task in (mounted, ended):
                task.cancel()
            await asyncio.gather(mounted, ended, return_exceptions=True)
    finally:
        os.close(errors)
    return process


def _last_line(said: str) -> str:
    return said.splitlines()[-1] if said else "it ended without a word"
