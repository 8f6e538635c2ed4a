"""The end of an instance: when it is over, and how it is brought about.

Its process waits for the program that it was started for, and ends with it. What the program has
left goes on and counts, until the last of it has ended; but when the process is ended before the
program has, all that is inside ends with it.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Collection
from typing import Final

from fimd.base.errors import FimError, ProcessGoneError
from fimd.instances.inside import Inside, children
from fimd.instances.instance import Instance
from fimd.mounts.process import Process

_GLANCE: Final = 0.1
"""Seconds between two looks at processes that are asked to end."""
_PERIOD: Final = 1.0
"""Seconds between two looks at what runs in the background without a namespace of its own."""
_STEPS: Final = 2
"""From an instance's process to its program, where nothing of ours is in between."""


async def over(instance: Instance, on_background: Callable[[], None]) -> None:
    """Wait until nothing of an instance runs any more, after its process has ended.

    `on_background` is called where its program has ended and left something that goes on.
    """
    inside = instance.inside
    if inside.has_program:
        await kill(instance)
    while True:
        init = _watched(inside)
        if init is not None:
            on_background()
            await init.wait()
        elif instance.own_processes or not await asyncio.to_thread(inside.processes):
            return
        else:
            on_background()
            await asyncio.sleep(_PERIOD)


async def kill(instance: Instance) -> None:
    """Kill all that is inside of an instance, and wait for its end a moment."""
    init = _watched(instance.inside)
    if not instance.own_processes:
        # with a namespace of its own the others end with the first one
        await asyncio.to_thread(_send_all, instance.inside, signal.SIGKILL, ())
    if init is not None:
        if instance.own_processes:
            init.send_signal(signal.SIGKILL)
        await init.wait(_PERIOD)
        init.close()


async def asked_to_end(instance: Instance, seconds: float) -> bool:
    """Ask an instance's program to end, then what it has left; tell whether all did in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    asked: set[int] = set()
    while True:
        if not instance.process.alive:
            asked |= await asyncio.to_thread(_send_all, instance.inside, signal.SIGTERM, asked)
        elif (program := _program(instance)) not in asked:
            _send(program, signal.SIGTERM)
            asked.add(program)
        left = deadline - loop.time()
        if await instance.has_ended(min(left, _GLANCE)):
            return True
        if left <= _GLANCE:
            return False


def _watched(inside: Inside) -> Process | None:
    init = inside.init
    if init is None:
        return None
    try:
        process = Process.watch(init)
    except ProcessGoneError:
        return None
    if inside.init == init:
        return process
    process.close()  # it has ended meanwhile, and another may have its number
    return None


def _program(instance: Instance) -> int:
    """Return the program of an instance, or what is on its way to become it."""
    found = instance.inside.program
    if found is None:
        found = instance.pid
        for _ in range(_STEPS):
            found = next(iter(children(found)), found)
    return found


def _send_all(inside: Inside, number: signal.Signals, but: Collection[int]) -> set[int]:
    """Send a signal to all processes inside, with some exceptions; return to which."""
    sent = {pid for pid in inside.processes() if pid not in but}
    for pid in sent:
        _send(pid, number, inside)
    return sent


def _send(pid: int, number: signal.Signals, inside: Inside | None = None) -> None:
    """Send a signal to a process, if it is inside, unless it has ended. Raises FimError."""
    try:
        descriptor = os.pidfd_open(pid)
        try:
            if inside is None or inside.holds(pid):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended by itself meanwhile
    except PermissionError as error:
        raise FimError(f"process {pid} can't be ended: {error.strerror}") from error
