"""Mounts that do not answer are found in time, and ended however their processes are."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from fimd.mounts.namespace import Namespace
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process, run
from fimd.mounts.silent import end, silent
from fimd.mounts.unmount import clear
from fimd.overlays import BACKENDS
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
    stack = tmp_path / "stack"
    for name in ("layers/0", "merged"):
        (stack / name).mkdir(parents=True)
    for name in ("upper", "work"):
        (tmp_path / "changes" / name).mkdir(parents=True)
        (stack / name).symlink_to(tmp_path / "changes" / name)
    facts = (stack / "upper").stat()
    return StackDirectory("test", str(stack), 1, (facts.st_dev, facts.st_ino))


@asynccontextmanager
async def union(directory: StackDirectory) -> AsyncIterator[tuple[Namespace, Process]]:
    """The namespace that it is mounted in, and its process."""
    state = Path(directory.path) / "state"
    state.mkdir()
    with closing(Outputs(state)) as outputs:
        namespace = Namespace(state, outputs, [])
        namespace.start()
        async with namespace.held():
            process = (await BACKENDS["overlayfs"].mount(directory, namespace, 10.0)).process
            assert process is not None
            yield namespace, process
            await clear(namespace, directory.merged)
            for mount in reversed(namespace.below(directory.path)):
                await namespace.unmount(mount.mount_point)
        await namespace.close()
        assert not namespace.exists


async def test_one_that_is_stopped_is_told_from_those_that_answer(
    directory: StackDirectory, tmp_path: Path
) -> None:
    async with union(directory) as (namespace, process):
        assert await silent(namespace, [directory.merged, str(tmp_path)], 10.0) == []
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        found = await silent(namespace, [str(tmp_path), directory.merged], 0.3)
        assert found == [directory.merged]
        assert time.monotonic() - began < 5
        await end(namespace, process, directory.merged)
        assert not process.alive
        # it answers with an error
        assert await silent(namespace, [directory.merged], 10.0) == []


async def test_a_connection_is_aborted_where_its_process_cannot_be_ended(
    directory: StackDirectory,
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount what connections are aborted by")
    async with union(directory) as (namespace, process):
        process.send_signal(signal.SIGSTOP)
        waiting = await asyncio.create_subprocess_exec(
            *namespace.join,
            "ls",
            os.path.join(directory.merged, "x"),
            stderr=asyncio.subprocess.PIPE,
        )
        [mounted] = namespace.below(directory.merged)
        words = ["unshare", "--mount", sys.executable, "-c", ABORT, mounted.device]
        assert await run(words, seconds=10) == b""
        async with asyncio.timeout(10):
            _, errors = await waiting.communicate()
        assert errors  # while its process is stopped yet
        assert process.alive
        process.send_signal(signal.SIGCONT)
        assert await process.wait(10.0)
