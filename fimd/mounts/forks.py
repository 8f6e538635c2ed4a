"""The daemon's end of the template: asks it for workers, calls and programs, and waits for them."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from fimd.base.errors import MountError, UnsupportedError, named
from fimd.base.logs import inherited
from fimd.mounts import fuse_device
from fimd.mounts.output import Output, Outputs
from fimd.mounts.pipes import read_to_end, readable
from fimd.mounts.process import Process
from fimd.mounts.template import MAX_REQUEST, receive_answer, request_bytes

_IN_VAIN: Final = 0.5
"""Seconds to leave for a template that has not answered in time."""
_LARGEST_RESULT: Final = 16 << 20


class Template:
    """A running template process; started anew where it has died.

    `namespaces` opens those that it is to be in: descriptors with setns(2)'s kinds, which are
    closed once it has joined them.
    """

    def __init__(
        self,
        modules: Sequence[str],
        outputs: Outputs,
        namespaces: Callable[[], list[tuple[int, int]]],
    ) -> None:
        self._modules = tuple(modules)
        self._outputs = outputs
        self._namespaces = namespaces
        self._process: Process | None = None
        self._control: socket.socket | None = None
        self._joined = False
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Start the process, so that it is warm when the first worker is asked for."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = Process.spawn(
                [sys.executable, "-P", "-m", "fimd.mounts.template", *self._modules],
                input_=theirs.fileno(),
                directory="/",
            )
        ours.setblocking(False)
        self._control, self._process, self._joined = ours, process, False

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

    async def serve(
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
        facts = {"worker": worker, "name": name, "arguments": arguments, "fields": dict([serves])}
        process, said, _ = await self._heard("serve", facts, files, serves, seconds)
        if said != b"ready":
            await process.wait(seconds)
            reason = await asyncio.to_thread(fuse_device.missing)
            reason = reason or said.decode(errors="replace") or "its process died"
            raise MountError(f"{name} could not be mounted: {reason}")
        return process

    async def call(
        self,
        function: str,
        arguments: dict[str, Any],
        *,
        name: str,
        files: Sequence[int] = (),
        serves: tuple[str, str],
        seconds: float,
    ) -> Any:
        """Have a function called in a process of its own, and return what it returns.

        `function` is `module:name`; it takes `arguments` and the files, and returns what JSON can
        hold. Raises the FimError that it raises, and MountError where it dies or takes too long.
        """
        facts = {"function": function, "name": name, "arguments": arguments}
        facts["fields"] = dict([serves])
        process, said, output = await self._heard("call", facts, files, serves, seconds)
        if not said:
            await process.wait(seconds)
            await output.ended(_IN_VAIN)
            raise MountError(f"{name} died: {output.last or 'it said nothing'}")
        answer = json.loads(said)
        if "error" in answer:
            raise named(*answer["error"])
        return answer["result"]

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        serves: tuple[str, str],
        directory: str,
        seconds: float,
        root: str = "",
    ) -> tuple[Process, Output]:
        """Start a program in a session of its own; what it says is logged with `serves`.

        `root` is to be its root directory, in which `directory` is and all that it needs.

        Raises UnsupportedError where it is not installed.
        """
        program = shutil.which(argv[0])
        if program is None:
            raise UnsupportedError(f"{argv[0]} is not installed")
        facts = {"argv": [program, *argv[1:]], "directory": directory, "root": root}
        facts["name"] = os.path.basename(program)
        output, errors = self._outputs.new(argv[0], *serves)
        status, report = os.pipe()
        os.close(status)
        try:
            async with asyncio.timeout(seconds):
                return await self._fork("spawn", facts, [report, errors]), output
        except TimeoutError:
            raise MountError(f"{argv[0]} was not started within {seconds:g} s") from None
        finally:
            os.close(report)
            os.close(errors)

    async def unmount(self, mount_point: str, seconds: float) -> None:
        """Detach a mount; what still uses it keeps being served. Raises MountError, OSError."""
        try:
            async with asyncio.timeout(seconds):
                await self._ask("unmount", {"mount_point": mount_point, "name": mount_point}, [])
        except TimeoutError:
            raise MountError(f"{mount_point} was not unmounted within {seconds:g} s") from None

    async def _heard(
        self,
        what: str,
        facts: dict[str, Any],
        files: Sequence[int],
        serves: tuple[str, str],
        seconds: float,
    ) -> tuple[Process, bytes, Output]:
        """Fork, and wait for what the process says on its status pipe."""
        name = facts["name"]
        status, report = os.pipe()
        followed, output = self._outputs.new(name, *serves)
        try:
            try:
                async with asyncio.timeout(seconds):
                    process = await self._fork(what, facts, [report, output, *files])
            finally:
                os.close(report)
                os.close(output)
            try:
                async with asyncio.timeout(seconds):
                    said = await read_to_end(status, _LARGEST_RESULT)
            except BaseException:
                await process.stop()
                raise
        except TimeoutError:
            raise MountError(f"{name} was not ready within {seconds:g} s") from None
        finally:
            os.close(status)
        return process, said, followed

    async def _fork(self, what: str, facts: dict[str, Any], files: list[int]) -> Process:
        answer, pidfd = await self._ask(what, facts, files)
        return Process(answer["pid"], pidfd)

    async def _ask(
        self, what: str, facts: dict[str, Any], files: list[int]
    ) -> tuple[dict[str, Any], int | None]:
        """Send a request and return the answer. Raises OSError where the template says so."""
        request = request_bytes(what, inherited(), **facts)
        if len(request) > MAX_REQUEST:
            raise MountError(f"{facts['name']}: the arguments take {len(request)} bytes")
        async with self._turn:
            try:
                if self._process is None or not self._process.alive:
                    await self.close()
                    self.start()
                if not self._joined:
                    await self._join()
                return await self._exchange(request, files)
            except EOFError as error:
                await self.close()
                raise MountError(
                    f"{facts['name']}: the template process died: see the log"
                ) from error
            except asyncio.CancelledError:
                # an answer that nobody waits for is not to be the next one's
                await asyncio.shield(self.close(_IN_VAIN))
                raise

    async def _join(self) -> None:
        opened = self._namespaces()
        try:
            kinds = [kind for _, kind in opened]
            request = request_bytes("join", inherited(), kinds=kinds)
            await self._exchange(request, [descriptor for descriptor, _ in opened])
        except OSError as error:
            raise MountError(
                f"the namespace for mounts can't be joined ({error.strerror}): see 'fimctl doctor'"
            ) from error
        finally:
            for descriptor, _ in opened:
                os.close(descriptor)
        self._joined = True

    async def _exchange(
        self, request: bytes, files: list[int]
    ) -> tuple[dict[str, Any], int | None]:
        assert self._control is not None
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
