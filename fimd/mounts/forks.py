"""The daemon's end of the template: asks it for workers and waits until they serve."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fimd.base.errors import MountError
from fimd.base.logs import inherited
from fimd.mounts import fuse_device
from fimd.mounts.output import Outputs
from fimd.mounts.pipes import read_to_end, readable
from fimd.mounts.process import Process
from fimd.mounts.template import MAX_REQUEST, receive_answer, request_bytes

_IN_VAIN: Final = 0.5
"""Seconds to leave for a template that has not answered in time."""


class Template:
    """A running template process; started anew where it has died."""

    def __init__(self, modules: Sequence[str], outputs: Outputs) -> None:
        self._modules = tuple(modules)
        self._outputs = outputs
        self._process: Process | None = None
        self._control: socket.socket | None = None
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Start the process, so that it is warm when the first worker is asked for."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = Process.spawn(
                [sys.executable, "-P", "-m", "fimd.mounts.template", *self._modules],
                input_=theirs.fileno(),
            )
        ours.setblocking(False)
        self._control, self._process = ours, process

    async def close(self, seconds: float = 5.0) -> None:
        """Let the process leave, and end it where it does not; the workers stay."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            process, self._process = self._process, None
            if not await process.wait(seconds):
                process.send_signal(signal.SIGKILL)
                await process.wait(seconds)

    async def fork(
        self,
        worker: str,
        *,
        name: str,
        arguments: dict[str, Any],
        files: Sequence[int] = (),
        serves: tuple[str, str],
        seconds: float,
    ) -> Process:
        """Fork a worker and wait until its filesystem is mounted.

        `serves` is a field and its value, which say in each of its messages what it is about.

        Raises MountError, with what the worker said, where it fails or takes too long.
        """
        status, report = os.pipe()
        _, output = self._outputs.new(name, *serves)
        fields = dict([serves])
        try:
            try:
                async with asyncio.timeout(seconds):
                    given = [report, output, *files]
                    process = await self._ask(worker, name, arguments, given, fields)
            finally:
                os.close(report)
                os.close(output)
            try:
                async with asyncio.timeout(seconds):
                    said = await read_to_end(status)
            except BaseException:
                await process.stop()
                raise
        except TimeoutError:
            raise MountError(f"{name} was not ready within {seconds:g} s") from None
        finally:
            os.close(status)
        if said != b"ready":
            await process.wait(seconds)
            reason = await asyncio.to_thread(fuse_device.obstacle)
            reason = reason or said.decode(errors="replace") or "its process died"
            raise MountError(f"{name} could not be mounted: {reason}")
        return process

    async def _ask(
        self,
        worker: str,
        name: str,
        arguments: dict[str, Any],
        files: list[int],
        fields: Mapping[str, str],
    ) -> Process:
        request = request_bytes(worker, name, arguments, inherited(), fields)
        if len(request) > MAX_REQUEST:
            raise MountError(f"{name}: the arguments take {len(request)} bytes")
        async with self._turn:
            if self._process is None or not self._process.alive:
                await self.close()
                self.start()
            assert self._control is not None
            try:
                socket.send_fds(self._control, [request], files)
                await readable(self._control.fileno())
                return Process(*receive_answer(self._control))
            except (EOFError, OSError) as error:
                await self.close()
                raise MountError(f"{name}: the template process died: see the log") from error
            except asyncio.CancelledError:
                # an answer that nobody waits for is not to be the next one's
                await asyncio.shield(self.close(_IN_VAIN))
                raise
