"""Mounts that do not answer are found in time, and ended however their processes are."""

import asyncio
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from fimd.mounts.output import Outputs
from fimd.mounts.process import Process, run
from fimd.mounts.silent import end, silent
from fimd.mounts.table import MountTable, below
from fimd.mounts.unmount import clear
from fimd.overlays.overlayfs import mount
from fimd.overlays.stack import StackDirectory

ABORT = """
import subprocess, sys
from fimd.mounts import silent
subprocess.run(["mount", "-t", "fusectl", "none", silent.CONNECTIONS], check=True)
silent.abort(sys.argv[1])
"""


@pytest.fixture
def directory(tmp_path: Path) -> StackDirectory:
    """What a union of an empty layer and an empty upper is mounted from."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")
    for name in ("layers/0", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    return StackDirectory("test", str(tmp_path), 1)


async def union(directory: StackDirectory) -> Process:
    said = Path(directory.path) / "output"
    said.mkdir()
    with MountTable() as table, closing(Outputs(said)) as outputs:
        return (await mount(directory, table, outputs, 10.0)).process


async def test_one_that_is_stopped_is_told_from_those_that_answer(
    directory: StackDirectory, tmp_path: Path
) -> None:
    process = await union(directory)
    assert await silent([directory.merged, str(tmp_path)], 10.0) == []
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert await silent([str(tmp_path), directory.merged], 0.3) == [directory.merged]
    assert time.monotonic() - began < 5
    await end(process, directory.merged)
    assert not process.alive
    assert await silent([directory.merged], 10.0) == []  # it answers with an error
    await clear(directory.merged)


async def test_a_connection_is_aborted_where_its_process_cannot_be_ended(
    directory: StackDirectory,
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount what connections are aborted by")
    process = await union(directory)
    process.send_signal(signal.SIGSTOP)
    waiting = await asyncio.create_subprocess_exec(
        "ls", os.path.join(directory.merged, "x"), stderr=asyncio.subprocess.PIPE
    )
    [mounted] = below(directory.merged)
    words = ["unshare", "--mount", sys.executable, "-c", ABORT, mounted.device]
    assert await run(words, seconds=10) == b""
    async with asyncio.timeout(10):
        _, errors = await waiting.communicate()
    assert errors  # while its process is stopped yet
    assert process.alive
    process.send_signal(signal.SIGCONT)
    assert await process.wait(10.0)
    await clear(directory.merged)
