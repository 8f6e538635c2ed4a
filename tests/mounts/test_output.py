"""What mount programs say is read from their pipes, whoever reads, and as much as is bearable."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fimd.mounts.output import Outputs
from fimd.mounts.process import Process


@pytest.fixture
def heard() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def outputs(tmp_path: Path) -> AsyncIterator[Outputs]:
    outputs = Outputs(tmp_path)
    yield outputs
    outputs.close()


def start(outputs: Outputs, script: str) -> Process:
    _, descriptor = outputs.new("/usr/bin/speaker", "fim_layer", "abc")
    try:
        return Process.spawn(["sh", "-c", script], output=descriptor, errors=descriptor)
    finally:
        os.close(descriptor)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it is the world that changes
            await asyncio.sleep(0.02)


def pipes(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_lines_are_logged_with_what_the_program_serves(
    outputs: Outputs, heard: list[MutableMapping[str, Any]], tmp_path: Path
) -> None:
    process = start(outputs, r"echo out; printf 'err \001\377\n\nno newline' >&2")
    await process.wait(60)
    await until(lambda: not pipes(tmp_path))
    assert [entry["event"] for entry in heard] == ["out", "err \ufffd\ufffd", "no newline"]
    for entry in heard:
        assert (entry["fim_layer"], entry["program"]) == ("abc", "speaker")


async def test_what_unionfs_says_at_every_name_is_left_out(
    outputs: Outputs, heard: list[MutableMapping[str, Any]], tmp_path: Path
) -> None:
    _, descriptor = outputs.new("/usr/bin/unionfs", "fim_stack", "abc")
    script = "for i in 1 2 3; do echo METANAME = .unionfs-fuse, de-\\>d_name = x; done; echo failed"
    process = Process.spawn(["sh", "-c", script], output=descriptor, errors=descriptor)
    os.close(descriptor)
    await process.wait(60)
    await until(lambda: not pipes(tmp_path))
    assert [entry["event"] for entry in heard] == ["failed"]


async def test_the_program_speaks_on_while_nobody_reads(
    tmp_path: Path, heard: list[MutableMapping[str, Any]]
) -> None:
    first = Outputs(tmp_path)
    process = start(first, "echo one; sleep 0.5; echo two; sleep 0.5; echo three")
    await until(lambda: heard)
    first.close()
    await asyncio.sleep(0.7)
    assert process.alive
    second = Outputs(tmp_path)
    second.adopt()
    await process.wait(60)
    assert process.status == 0
    await until(lambda: not pipes(tmp_path))
    assert [entry["event"] for entry in heard] == ["one", "two", "three"]


async def test_a_pipe_that_nobody_reads_never_blocks(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path)
    process = start(outputs, "sleep 0.1; head -c 300000 /dev/zero; echo done >&2; exit 3")
    outputs.close()
    assert await process.wait(60)
    assert process.status == 3


async def test_a_pipe_whose_program_ended_meanwhile_is_removed(tmp_path: Path) -> None:
    first = Outputs(tmp_path)
    process = start(first, "true")
    first.close()
    await process.wait(60)
    assert pipes(tmp_path)
    second = Outputs(tmp_path)
    second.adopt()
    await until(lambda: not pipes(tmp_path))


async def test_what_is_no_pipe_of_a_program_is_removed_unread(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "output"
    directory.mkdir()
    (directory / "fim_layer.abc.speaker.0").symlink_to(victim)
    (directory / "fim_layer.abc.speaker.1").write_text("no pipe")
    os.mkfifo(directory / "who knows")
    outputs = Outputs(directory)
    outputs.adopt()
    assert pipes(directory) == []
    assert victim.read_text() == "precious"


async def test_a_program_that_never_stops_talking_is_bounded(
    outputs: Outputs, heard: list[MutableMapping[str, Any]], tmp_path: Path
) -> None:
    process = start(outputs, "exec yes 'the same again'")
    used = time.process_time()
    await asyncio.sleep(1.5)
    used = time.process_time() - used
    await process.stop()
    await until(lambda: not pipes(tmp_path))
    said = [entry for entry in heard if entry["event"] == "the same again"]
    assert len(said) == 100
    [left_out] = [entry for entry in heard if entry["event"] == "a program says too much"]
    assert int(str(left_out["left_out"])) > 1000
    assert used < 1.0
