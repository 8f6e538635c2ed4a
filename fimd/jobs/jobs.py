"""All jobs of the daemon: each a worker process, so that the event loop stays free."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from fimd.base.errors import FimError
from fimd.base.observe import Collection
from fimd.jobs.job import Job, JobError, JobState
from fimd.mounts.process import Process

log = structlog.get_logger(__name__)

_KEPT: Final = 60.0
"""Seconds for which a job that has ended can be asked for its result."""
_GRACE: Final = 10.0
"""Seconds that a cancelled worker has to tidy up."""
_LONGEST_LINE: Final = 1 << 20


class Jobs:
    """The jobs that are running, or ended a moment ago."""

    def __init__(self) -> None:
        self.current: Collection[Job] = Collection()
        self.on_completed: Callable[[Job], None] = lambda _job: None
        """Called when a job has ended, while it still is in the collection."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(
        self,
        operation: str,
        subject: str,
        arguments: dict[str, Any],
        held: AsyncExitStack,
        join: Sequence[str] = (),
    ) -> Job:
        """Start a worker. `held` is closed when it has its result, or has none and is gone.

        `join` is the beginning of a command that enters the namespace in which it is to work.
        """
        request = json.dumps({"operation": operation, "arguments": arguments}).encode()
        given = os.memfd_create("request", os.MFD_CLOEXEC)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with open(given, "r+b", closefd=False) as file:
                file.write(request)
            os.lseek(given, 0, os.SEEK_SET)
            worker = [*join, sys.executable, "-P", "-m", "fimd.jobs.worker"]
            process = Process.spawn(worker, input_=given, output=writer, directory="/")
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(given)
            os.close(writer)
        job = Job(secrets.token_hex(8), operation, subject, process)
        self.current.add(job.id, job)
        log.info("job started", fim_job=job.id, operation=operation, subject=subject)
        task = asyncio.create_task(self._follow(job, reader, held), name=f"job {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _follow(self, job: Job, reader: int, held: AsyncExitStack) -> None:
        try:
            async with held:
                transport, stream = await _open(reader)
                try:
                    while job.state is JobState.RUNNING and (line := await stream.readline()):
                        self._take(job, json.loads(line))
                finally:
                    transport.close()
                if job.state is JobState.RUNNING:
                    await job.process.wait(_GRACE)
                    self._fail(job, _sudden_end(job))
            self._complete(job)
            await job.process.wait()  # it may be tidying up
        except asyncio.CancelledError:
            job.process.send_signal(signal.SIGKILL)
            await job.process.wait(_GRACE)
            raise

    def _take(self, job: Job, event: dict[str, Any]) -> None:
        """Take what the worker said."""
        if "progress" in event:
            job.advance(*event["progress"])
        elif "note" in event:
            job.notes.append(event["note"])
            log.warning("job says", fim_job=job.id, note=event["note"])
        elif "error" in event:
            self._fail(job, JobError(*event["error"]))
        elif "result" in event:
            job.result = event["result"]
            job.progress = 1.0
            job.state = JobState.SUCCEEDED
        self.current.changed(job.id)

    def _fail(self, job: Job, error: FimError) -> None:
        job.error = error
        job.state = JobState.CANCELLED if job.is_cancelled else JobState.FAILED

    def _complete(self, job: Job) -> None:
        log.info("job ended", fim_job=job.id, state=job.state, reason=str(job.error or ""))
        self.current.changed(job.id)
        self.on_completed(job)
        loop = asyncio.get_running_loop()
        self._timers[job.id] = loop.call_later(_KEPT, self._forget, job)

    def _forget(self, job: Job) -> None:
        self._timers.pop(job.id).cancel()
        self.current.remove(job.id)

    def cancel(self, job: Job) -> None:
        """Stop a job: what it has done until then is undone by itself. Ended ones stay as is."""
        if job.state is not JobState.RUNNING or job.is_cancelled:
            return
        job.is_cancelled = True
        job.process.send_signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_GRACE, job.process.send_signal, signal.SIGKILL)
        job.process.on_end(timer.cancel)

    async def close(self) -> None:
        """End all jobs now. What they were doing is as if it had not begun, or is complete."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _open(reader: int) -> tuple[asyncio.ReadTransport, asyncio.StreamReader]:
    stream = asyncio.StreamReader(limit=_LONGEST_LINE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", buffering=0)
    )
    return transport, stream


def _sudden_end(job: Job) -> FimError:
    status = job.process.status
    how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
    return FimError(f"the process of the {job.operation} ended {how}; nothing is lost, try again")
