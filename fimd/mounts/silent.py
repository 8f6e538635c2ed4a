"""Mounts that have fallen silent: found in bounded time, and ended by force.

A process that is stopped, or waits for a disk that is gone, keeps whoever looks into its mount
waiting for ever. So a child looks, which can be given up, and the process is then ended: the
kernel answers whoever waited with an error.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final

import structlog

from fimd.mounts.namespace import Namespace
from fimd.mounts.process import CommandError, CommandTimeoutError, Process, run

log = structlog.get_logger(__name__)

CONNECTIONS: Final = "/sys/fs/fuse/connections"
_ALONE: Final = 1.0
"""Seconds for one of several mounts, once it is known that some are silent."""
_AT_ONCE: Final = 16
_KILLED: Final = 2.0
"""Seconds in which a process that was killed ends, unless it waits for something itself."""


async def silent(namespace: Namespace, mount_points: Sequence[str], seconds: float) -> list[str]:
    """Return those of these mounts that do not answer within some seconds.

    One that answers with an error is not silent: its process has ended, and that is known.
    """
    if not mount_points or await _answer(namespace, mount_points, seconds):
        return []
    if len(mount_points) == 1:
        return list(mount_points)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def alone(point: str) -> bool:
        async with turns:
            return await _answer(namespace, [point], min(seconds, _ALONE))

    answers = await asyncio.gather(*map(alone, mount_points))
    return [point for point, answer in zip(mount_points, answers, strict=True) if not answer]


async def _answer(namespace: Namespace, mount_points: Sequence[str], seconds: float) -> bool:
    """Ask for the free space: the one question that the kernel never answers by itself."""
    try:
        look = ["stat", "--file-system", "--format=", "--", *mount_points]
        await run([*namespace.join, *look], seconds=seconds)
    except CommandTimeoutError:
        return False
    except CommandError:
        return True
    return True


async def end(namespace: Namespace, process: Process, mount_point: str) -> None:
    """End a mount's process, and its connection to the kernel where even that does not help."""
    devices = [mount.device for mount in namespace.below(mount_point)]
    log.error("a mount that does not answer is ended", path=mount_point, process=process.pid)
    process.send_signal(signal.SIGKILL)
    if await process.wait(_KILLED):
        return
    for device in devices:
        await asyncio.to_thread(abort, device)
    await process.wait(_KILLED)


def abort(device: str) -> None:
    """Abort a FUSE connection: whoever waits for it gets an error, the process that served it too.

    `device` is the mount's, major:minor.
    """
    path = os.path.join(CONNECTIONS, device.rpartition(":")[2], "abort")
    try:
        with open(path, "w") as file:
            file.write("1")
    except OSError as error:
        log.error("a connection can't be aborted", path=path, reason=error.strerror)
