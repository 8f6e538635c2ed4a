"""Processes are known by their pidfds, and commands have a limit and a status."""

import asyncio
import os
import signal
import time

import pytest

from fimd.base.errors import ProcessGoneError, UnsupportedError
from fimd.mounts.process import CommandError, Process, run, start_time


async def test_the_end_of_a_child_is_seen_with_its_status() -> None:
    process = Process.spawn(["sh", "-c", "exit 7"])
    told = asyncio.Event()
    process.on_end(told.set)
    assert await process.wait(60)
    assert process.status == 7
    await asyncio.wait_for(told.wait(), 1)
    assert not process.alive


async def test_an_observer_that_comes_late_is_told_too() -> None:
    process = Process.spawn(["true"])
    await process.wait(60)
    told = asyncio.Event()
    process.on_end(told.set)
    await asyncio.wait_for(told.wait(), 1)


async def test_a_process_of_somebody_else_is_watched_by_its_pid() -> None:
    child = Process.spawn(["sleep", "30"])
    watcher = Process.watch(child.pid)
    assert not await watcher.wait(0.05)
    child.send_signal(signal.SIGKILL)
    assert await watcher.wait(60)
    await child.wait(60)
    with pytest.raises(ProcessGoneError, match=str(child.pid)):
        Process.watch(child.pid)


async def test_a_pid_is_known_only_with_the_time_of_its_start() -> None:
    child = Process.spawn(["sleep", "30"])
    started = start_time(child.pid)
    known = Process.known(child.pid, started)
    assert known is not None
    known.close()
    assert Process.known(child.pid, started + 1) is None
    await child.stop()
    assert Process.known(child.pid, started) is None


async def test_stop_insists_where_asking_does_not_help() -> None:
    process = Process.spawn(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    await asyncio.sleep(0.2)
    await process.stop(seconds=0.2)
    assert process.status == -signal.SIGKILL


async def test_a_child_is_in_a_session_of_its_own() -> None:
    process = Process.spawn(["sleep", "30"])
    assert os.getsid(process.pid) == process.pid
    await process.stop()


async def test_a_commands_output_is_returned() -> None:
    assert await run(["echo", "said"], seconds=5) == b"said\n"


async def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(CommandError, match="sh failed: the reason"):
        await run(["sh", "-c", "echo more >&2; echo the reason >&2; exit 3"], seconds=5)
    with pytest.raises(CommandError, match="exit status 3"):
        await run(["sh", "-c", "exit 3"], seconds=5)


async def test_a_command_that_takes_too_long_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"did not finish within 0\.2 s"):
        await run(["sleep", "30"], seconds=0.2)
    assert time.monotonic() - began < 5


async def test_a_command_that_is_cancelled_is_killed() -> None:
    task = asyncio.create_task(run(["sleep", "31.4159"], seconds=30))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    listed = await run(["sh", "-c", "cat /proc/[0-9]*/cmdline 2>&1 || true"], seconds=5)
    assert b"31.4159\0" not in listed


async def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(UnsupportedError, match="no-such-program is not installed"):
        await run(["no-such-program"], seconds=5)


async def test_no_descriptor_is_left_behind() -> None:
    await run(["true"], seconds=5)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await run(["true"], seconds=5)
    assert len(os.listdir("/proc/self/fd")) == before
