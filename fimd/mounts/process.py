"""Processes that may outlive the daemon, watched by their pidfds.

asyncio's own subprocesses die with their loop's bookkeeping and cost a thread each on Python 3.11;
a mount process is started in a session of its own and is as well known when it was adopted.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

from fimd.base.errors import FimError, ProcessGoneError, UnsupportedError

_OUTPUT_LIMIT: Final = 1 << 20


class CommandError(FimError):
    """An external command failed, or took too long."""

    name = "CommandFailed"


class CommandTimeoutError(CommandError):
    """An external command took too long, and was killed."""


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (proc(5), field 22 of stat).

    With the PID it names a process for good. Raises ProcessGoneError.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGoneError(f"there is no process {pid}") from None
    return int(stat.rpartition(b")")[2].split()[19])


def is_held_up(pid: int) -> bool:
    """Tell whether a process is stopped, or waits for a device: it may not answer for long.

    One that waits for work, or works, is in state S or R (proc(5), field 3 of stat).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in {b"S", b"R"}
    except (FileNotFoundError, ProcessLookupError):
        return True


class Process:
    """A process and the moment of its end. Owns its pidfd until the process has ended.

    `status` is the exit status, or minus the signal, of a child that has ended. One without a pidfd
    has ended before anybody watched it.
    """

    def __init__(
        self, pid: int, pidfd: int | None, child: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.pid = pid
        self.status: int | None = None
        self._pidfd = -1 if pidfd is None else pidfd
        self._child = child
        self._ended = asyncio.Event()
        self._observers: list[Callable[[], None]] = []
        if pidfd is None:
            self._ended.set()
        else:
            asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    @classmethod
    def watch(cls, pid: int) -> Self:
        """Watch a process that somebody else started. Raises ProcessGoneError."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            raise ProcessGoneError(f"there is no process {pid}") from None

    @classmethod
    def known(cls, pid: int, started: int) -> Self | None:
        """Watch the process that started at that time; None where it has ended since."""
        try:
            process = cls.watch(pid)
            if start_time(pid) == started:
                return process
            process.close()
        except ProcessGoneError:
            pass
        return None

    @property
    def started(self) -> int:
        """When the process started, in clock ticks since boot. Raises ProcessGoneError."""
        return start_time(self.pid)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        input_: int = subprocess.DEVNULL,
        directory: str | None = None,
        output: int = subprocess.DEVNULL,
        errors: int | None = None,
        environment: Mapping[str, str] | None = None,
        umask: int = 0,
    ) -> Self:
        """Start a program in a session of its own. Raises UnsupportedError where it is missing.

        `umask` is 0 for a filesystem's process, which creates with exactly the mode that it was
        asked for; -1 is that of the daemon.
        """
        try:
            child = subprocess.Popen(
                argv,
                cwd=directory,
                stdin=input_,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                env=environment,
                umask=umask,
            )
        except FileNotFoundError:
            raise UnsupportedError(f"{argv[0]} is not installed") from None
        except OSError as error:
            raise UnsupportedError(f"{argv[0]} can't be started: {error.strerror}") from error
        try:
            return cls(child.pid, os.pidfd_open(child.pid), child)
        except OSError:  # no descriptor is left: nobody could watch it
            child.kill()
            child.wait()
            raise

    def _on_end(self) -> None:
        child, self._child = self._child, None
        self.close()
        if child is not None:
            self.status = child.wait()
        self._ended.set()
        for observer in self._observers:
            observer()

    def close(self) -> None:
        """Stop watching; the process goes on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None:
            self._child.returncode = 0  # not this process's to wait for, of which it would warn
            self._child = None

    @property
    def alive(self) -> bool:
        """Whether the process has not been seen to end."""
        return not self._ended.is_set()

    def on_end(self, observer: Callable[[], None]) -> None:
        """Call `observer` when the process has ended (once, from the event loop)."""
        if self.alive:
            self._observers.append(observer)
        else:
            asyncio.get_running_loop().call_soon(observer)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most that long; tell whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, seconds: float = 3.0) -> None:
        """End the process: ask, then insist."""
        self.send_signal(signal.SIGTERM)
        if not await self.wait(seconds):
            self.send_signal(signal.SIGKILL)
            await self.wait(seconds)


async def run(argv: Sequence[str], *, seconds: float) -> bytes:
    """Run a command to its end and return what it printed, at most 1 MiB of it.

    Raises CommandError, with what it said, where it fails or takes longer than `seconds`.
    """
    output = os.memfd_create("output", os.MFD_CLOEXEC)
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    try:
        process = Process.spawn(argv, output=output, errors=errors)
        try:
            ended = await process.wait(seconds)
        finally:
            if process.alive:
                process.send_signal(signal.SIGKILL)
                await process.wait(1.0)
        if not ended:
            raise CommandTimeoutError(f"{argv[0]} did not finish within {seconds:g} s")
        if process.status:
            said = os.pread(errors, _OUTPUT_LIMIT, 0).decode(errors="replace").strip()
            reason = said.splitlines()[-1] if said else f"exit status {process.status}"
            raise CommandError(f"{argv[0]} failed: {reason}")
        return os.pread(output, _OUTPUT_LIMIT, 0)
    finally:
        os.close(output)
        os.close(errors)
