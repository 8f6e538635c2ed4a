"""The daemon's end of the template: asks it for workers, calls and programs, and waits for them."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from fimd.base.errors import FimError, MountError, UnsupportedError, named
from fimd.base.logs import inherited
from fimd.mounts import fuse_device
from fimd.mounts.origin import Keeper, Origin, Warm
from fimd.mounts.output import Output, Outputs, log_file
from fimd.mounts.pipes import Lines, read_to_end
from fimd.mounts.process import Process
from fimd.mounts.steps import Errand, Step
from fimd.mounts.template import MAX_REQUEST, request_bytes

T = TypeVar("T")

_AHEAD: Final = 10.0
"""Seconds that the origin has to fork, also where it has just been started."""
_LARGEST_RESULT: Final = 16 << 20


class Template(Keeper):
    """Keeps a template; forked from the origin at the first need, and anew where it has died.

    `namespaces` opens those that it is to be in: descriptors with setns(2)'s kinds, which are
    closed once it has joined them.
    """

    def __init__(
        self, origin: Origin, outputs: Outputs, namespaces: Callable[[], list[tuple[int, int]]]
    ) -> None:
        super().__init__()
        self._origin = origin
        self._outputs = outputs
        self._namespaces = namespaces
        self._joined = False

    async def fork_ahead(self) -> None:
        """Have the process there before the first need; one that can't be is forked then."""
        async with self._turn:
            with suppress(EOFError, OSError):  # which a TimeoutError is, too
                async with asyncio.timeout(_AHEAD):
                    await self._there()

    async def _there(self) -> Warm:
        """Return the process, which is forked where there is none. Raises EOFError, OSError."""
        if self._warm is None or not self._warm.alive:
            await self._let_go()
            self._warm, self._joined = await self._origin.fork(), False
        return self._warm

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
        _, output = self._outputs.new(name, *serves)
        try:
            async with self._forked("serve", facts, [output, *files], seconds) as (process, status):
                said = await _in_time(name, read_to_end(status), seconds)
        finally:
            os.close(output)
        if said != b"ready":
            await process.wait(seconds)
            reason = await asyncio.to_thread(fuse_device.missing)
            reason = reason or said.decode(errors="replace") or "its process died"
            raise MountError(f"{name} could not be mounted: {reason}")
        return process

    async def call(
        self, *steps: Step, serves: tuple[str, str], errand: Errand | None = None
    ) -> list[Any]:
        """Have steps taken in a process of their own, and return what they return.

        An errand that fails is left to be done by who needs it. Raises the FimError that a step
        raises, and MountError where one dies or takes too long.
        """
        said = os.memfd_create("said", os.MFD_CLOEXEC)
        try:
            results: list[Any] = []
            try:
                await self._take(
                    [*steps, *([errand.step] if errand else [])], serves, said, results
                )
            except FimError:
                if len(results) < len(steps):
                    raise
            if errand and len(results) > len(steps):
                errand.result = results.pop()
            return results
        finally:
            os.close(said)

    async def _take(
        self, steps: list[Step], serves: tuple[str, str], said: int, results: list[Any]
    ) -> None:
        """Have steps taken, and add to their results."""
        facts: dict[str, Any] = {"name": steps[0].name, "fields": dict([serves])}
        facts["steps"] = [step.words() for step in steps]
        files = [said, *(file for step in steps for file in step.files)]
        async with self._forked("call", facts, files, steps[0].seconds) as (process, status):
            lines = Lines(status, _LARGEST_RESULT)
            for step in steps:
                line = await _in_time(step.name, lines.next(), step.seconds)
                answer = json.loads(line) if line.endswith(b"\n") else {}
                if "result" not in answer:
                    break
                results.append(answer["result"])
            if "result" in answer or "error" in answer:
                process.close()  # it ends by itself, or goes on to do other work
        if "error" in answer:
            raise named(*answer["error"])
        if "result" not in answer:
            await process.wait(step.seconds)
        last = log_file(said, step.name, *serves)
        if "result" not in answer:
            raise MountError(f"{step.name} died: {last or 'it said nothing'}")

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

    @asynccontextmanager
    async def _forked(
        self, what: str, facts: dict[str, Any], files: list[int], seconds: float
    ) -> AsyncIterator[tuple[Process, int]]:
        """Fork, and yield the process and its status pipe; stop it where what follows fails."""
        status, report = os.pipe()
        try:
            try:
                asked = self._fork(what, facts, [report, *files])
                process = await _in_time(facts["name"], asked, seconds)
            finally:
                os.close(report)
            try:
                yield process, status
            except BaseException:
                await process.stop()
                raise
        finally:
            os.close(status)

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
                warm = await self._there()
                if not self._joined:
                    await self._join(warm)
                return await warm.ask(request, files)
            except EOFError as error:
                await self._let_go()
                raise MountError(
                    f"{facts['name']}: the template process died: see the log"
                ) from error
            except asyncio.CancelledError:
                await self._give_up()
                raise

    async def _join(self, warm: Warm) -> None:
        opened = self._namespaces()
        try:
            kinds = [kind for _, kind in opened]
            request = request_bytes("join", inherited(), kinds=kinds)
            await warm.ask(request, [descriptor for descriptor, _ in opened])
        except OSError as error:
            raise MountError(
                f"the namespace for mounts can't be joined ({error.strerror}): see 'fimctl doctor'"
            ) from error
        finally:
            for descriptor, _ in opened:
                os.close(descriptor)
        self._joined = True


async def _in_time(name: str, work: Coroutine[Any, Any, T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise MountError(f"{name} was not ready within {seconds:g} s") from None
