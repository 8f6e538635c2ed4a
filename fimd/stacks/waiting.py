"""Waiting until what is in use is free.

Who is refused because others use a data directory or an image may wait for them. Nothing is held
meanwhile, and the attempt is made anew from its beginning: what it found before may have changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fimd.base.errors import BusyError, InvalidArgumentError, ProcessGoneError
from fimd.base.races import first
from fimd.mounts.process import Process

T = TypeVar("T")

LONGEST: Final = 86400.0
"""Seconds that anybody may wait."""


class InUseError(BusyError):
    """Refused until somebody else is done, which `freed` tells."""

    def __init__(self, message: str, freed: asyncio.Event) -> None:
        super().__init__(message)
        self.freed = freed


class Turns:
    """Tells those who were refused something, by its name, when it is free."""

    def __init__(self) -> None:
        self._freed: dict[str, asyncio.Event] = {}

    def refuse(self, name: str, message: str) -> InUseError:
        """Return the error that refuses it for now."""
        return InUseError(message, self._freed.setdefault(name, asyncio.Event()))

    def free(self, name: str) -> None:
        """Wake whoever was refused."""
        freed = self._freed.pop(name, None)
        if freed is not None:
            freed.set()


def check_wait(seconds: float) -> None:
    """Raise InvalidArgumentError for what is no time to wait."""
    if not 0 <= seconds <= LONGEST:
        raise InvalidArgumentError(f"to wait {seconds:g} s is not between 0 and {LONGEST:g} s")


async def patiently(attempt: Callable[[], Awaitable[T]], seconds: float, pid: int) -> T:
    """Make an attempt, again whenever what refused it is free, for up to that many seconds.

    Raises what the attempt does, and ProcessGoneError once the process that waits has ended.
    """
    check_wait(seconds)
    if seconds == 0:
        return await attempt()
    process = Process.watch(pid)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    try:
        while True:
            try:
                return await attempt()
            except InUseError as error:
                refused = error
            await first(refused.freed.wait(), process.wait(), seconds=deadline - loop.time())
            if not process.alive:
                raise ProcessGoneError(f"process {pid} ended while it waited")
            if not refused.freed.is_set():
                raise BusyError(f"{refused} (it was waited for {seconds:g} s)")
    finally:
        process.close()
