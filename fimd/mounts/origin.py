"""The origin: a warm interpreter outside of any namespace, which templates are forked from.

Who has joined the user's namespace can't leave it again, so that a template ends with it. Importing
what the next one needs takes a fifth of a second of processor time, and a fork next to none.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

from fimd.base.logs import inherited
from fimd.mounts.pipes import readable
from fimd.mounts.process import Process
from fimd.mounts.template import receive_answer, request_bytes

_IN_VAIN: Final = 0.5
"""Seconds to leave for a process that has not answered in time."""
_LEAVING: Final = 5.0
"""Seconds that one may take to leave."""


class Warm:
    """A process that answers requests of fimd.mounts.template, one after the other."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        control.setblocking(False)
        self._process = process
        self._control = control

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.alive

    async def ask(self, request: bytes, files: Sequence[int]) -> tuple[dict[str, Any], int | None]:
        """Send a request; return the answer, and the pidfd that came with it.

        Raises OSError where the process says so, and EOFError where it has died.
        """
        try:
            socket.send_fds(self._control, [request], files)
            await readable(self._control.fileno())
            answer, pidfd = receive_answer(self._control)
        except ConnectionError as error:
            raise EOFError from error
        if "errno" in answer:
            if pidfd is not None:
                os.close(pidfd)
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer, pidfd

    async def close(self, seconds: float) -> None:
        """Let it leave, and end it where it does not; what it has started stays."""
        self._control.close()
        if not await self._process.wait(seconds):
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait(seconds)


class Keeper:
    """Keeps such a process, where there is one. Who asks it for something has the turn."""

    def __init__(self) -> None:
        self._warm: Warm | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Let it leave, and end it where it does not; what it has started stays.

        Who has asked it for something gets that before.
        """
        async with self._turn:
            await self._let_go()

    async def _let_go(self, seconds: float = _LEAVING) -> None:
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close(seconds)

    async def _give_up(self) -> None:
        """End it: an answer that nobody waits for is not to be the next one's."""
        await asyncio.shield(self._let_go(_IN_VAIN))


class Origin(Keeper):
    """Keeps the origin; started anew where it has died. `modules` are what it imports."""

    def __init__(self, modules: Sequence[str]) -> None:
        super().__init__()
        self._modules = tuple(modules)

    def start(self) -> None:
        """Start it, so that it is warm when the first template is asked for."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = Process.spawn(
                [sys.executable, "-P", "-m", "fimd.mounts.template", *self._modules],
                input_=theirs.fileno(),
                directory="/",
            )
        self._warm = Warm(process, ours)

    async def fork(self) -> Warm:
        """Return a template that is in no namespace yet. Raises EOFError, OSError."""
        async with self._turn:
            if self._warm is None or not self._warm.alive:
                await self._let_go()
                self.start()
            assert self._warm is not None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs:
                    answer, pidfd = await self._warm.ask(
                        request_bytes("fork", inherited()), [theirs.fileno()]
                    )
                return Warm(Process(answer["pid"], pidfd), ours)
            except BaseException as error:
                ours.close()
                if isinstance(error, asyncio.CancelledError):
                    await self._give_up()
                raise
