"""Jobs: worker processes that tell how far they are, can be cancelled, and die with the daemon."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fimd.jobs.job import Job, JobState
from fimd.jobs.jobs import Jobs


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """Jobs, of which none is left at the end."""
    made = Jobs()
    yield made
    await made.close()
    assert not any(job.process.alive for job in made.current)


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it is not the tests that could set an event
            await asyncio.sleep(0.01)


async def ended(job: Job) -> None:
    """Wait for a job's end."""
    await until(lambda: job.state is not JobState.RUNNING)


def create(source: Path, output: Path, level: int = 1) -> dict[str, Any]:
    """The arguments of a creation."""
    return {
        "directory": str(source),
        "output": str(output),
        "level": level,
        "file_list": None,
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory that is quickly packed."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    return tmp_path / "source"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A directory that takes long to pack at a high level."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(os.urandom(64 << 20))
    return tmp_path / "large"


async def test_a_job_succeeds_with_a_result_and_releases_what_it_held(
    jobs: Jobs, source: Path, tmp_path: Path
) -> None:
    released: list[str] = []
    completed: list[tuple[Job, list[str]]] = []
    jobs.on_completed = lambda job: completed.append((job, list(released)))

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        yield
        released.append("resource")

    held = AsyncExitStack()
    await held.enter_async_context(resource())
    job = jobs.start("create", "subject", create(source, tmp_path / "out"), held)
    await until(lambda: completed)
    assert completed == [(job, ["resource"])]
    assert job.state is JobState.SUCCEEDED
    assert job.progress == 1.0
    assert job.result == {
        "path": str(tmp_path / "out"),
        "size": (tmp_path / "out").stat().st_size,
    }


async def test_what_goes_wrong_in_a_worker_is_the_jobs_error(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.start("create", "x", create(tmp_path / "none", tmp_path / "out"), AsyncExitStack())
    await ended(job)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.name == "InvalidArgument"
    assert "does not exist" in str(job.error)


async def test_an_unknown_operation_fails(jobs: Jobs) -> None:
    job = jobs.start("nonsense", "x", {}, AsyncExitStack())
    await ended(job)
    assert "nonsense" in str(job.error)


async def test_progress_only_goes_forward_and_a_cancelled_job_leaves_nothing(
    jobs: Jobs, large: Path, tmp_path: Path
) -> None:
    job = jobs.start("create", "x", create(large, tmp_path / "out", 9), AsyncExitStack())
    seen: list[float] = []
    jobs.current.subscribe(lambda _event, _key, item: seen.append(item.progress))
    await until(lambda: job.phase == "pack")
    assert job.total == 64 << 20
    jobs.cancel(job)
    await ended(job)
    assert job.state is JobState.CANCELLED
    assert seen == sorted(seen)
    await until(lambda: not job.process.alive)
    assert os.listdir(tmp_path) == ["large"]
    jobs.cancel(job)  # nothing happens


async def test_a_worker_that_is_killed_is_a_failure_and_not_a_hang(
    jobs: Jobs, large: Path, tmp_path: Path
) -> None:
    job = jobs.start("create", "x", create(large, tmp_path / "out", 9), AsyncExitStack())
    await until(lambda: job.phase == "pack")
    os.kill(job.process.pid, signal.SIGKILL)
    await ended(job)
    assert job.state is JobState.FAILED
    assert "by signal 9" in str(job.error)


async def test_closing_ends_every_worker(large: Path, tmp_path: Path) -> None:
    jobs = Jobs()
    job = jobs.start("create", "x", create(large, tmp_path / "out", 9), AsyncExitStack())
    await until(lambda: job.phase)
    await jobs.close()
    assert not job.process.alive


def test_a_worker_dies_with_the_process_that_started_it(large: Path, tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from contextlib import AsyncExitStack\n"
        "from fimd.jobs.jobs import Jobs\n"
        "async def main():\n"
        f"    arguments = {create(large, tmp_path / 'out', 9)!r}\n"
        "    job = Jobs().start('create', 'x', arguments, AsyncExitStack())\n"
        "    while not job.phase: await asyncio.sleep(0.01)\n"
        "    print('worker', job.process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    lines = iter(parent.stdout.readline, b"")
    worker = next(int(line.split()[1]) for line in lines if line.startswith(b"worker"))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    state = ""
    if Path(f"/proc/{worker}/stat").exists():
        state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
    assert state in {"", "Z"}
