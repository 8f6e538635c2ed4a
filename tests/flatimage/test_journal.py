import dataclasses
import multiprocessing
import os
import random
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fimd.flatimage import journal
from fimd.flatimage.errors import NoSpaceError
from fimd.flatimage.file import open_image, write_at
from fimd.flatimage.layout import MIB, Kind, find_layout
from fimd.flatimage.reserved import BOOT, DESKTOP, ENVIRONMENT, NOTIFY
from fimd.flatimage.settings import Boot, Desktop

if TYPE_CHECKING:
    from tests.flatimage.conftest import Build


# Crashes: each write of the sequence is the last that reaches the file.
@pytest.mark.parametrize("kind", ["script", "elf-v2", "elf-v1"])
def test_a_crash_at_any_write_leaves_the_old_value_or_the_new(
    build: "Build", kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Desktop("old" * 700, ("O",)), Desktop("new" * 900, ("M", "N"))
    seen = set()
    for writes in range(5):
        sample = build(kind)
        sample.put(DESKTOP, old)
        with monkeypatch.context() as patch:
            patch.setattr(journal, "write_at", _failing_after(writes))
            try:
                sample.put(DESKTOP, new)
            except PowerCutError:
                seen.add(sample.get(DESKTOP).name[:3])
            else:
                break
        value = sample.get(DESKTOP)
        assert value in (old, new)
        sample.put(NOTIFY, True)  # the next writer completes what was begun
        assert sample.get(DESKTOP) == value
        with open_image(sample.path) as fd:
            assert journal.pending(fd, find_layout(fd)) is None
    else:
        raise AssertionError("there are more writes than the test looks at")
    assert seen == {"old", "new"}
    assert sample.get(DESKTOP) == new


class PowerCutError(Exception):
    pass


def _failing_after(writes: int) -> Callable[[int, int, bytes], None]:
    """Like write_at, but the write after `writes` others stops halfway."""
    count = 0

    def write(fd: int, offset: int, data: bytes) -> None:
        nonlocal count
        if count == writes:
            write_at(fd, offset, data[: len(data) // 2])
            raise PowerCutError
        count += 1
        write_at(fd, offset, data)

    return write


def test_killing_a_writer_over_and_over_never_leaves_a_mixture(build: "Build") -> None:
    sample = build("script")
    values = [{name: name * 100_000} for name in "ab"]

    def work() -> None:
        while True:
            for value in values:
                sample.put(ENVIRONMENT, value)

    sample.put(ENVIRONMENT, values[0])
    for attempt in range(25):
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        for _ in range(20):
            assert sample.get(ENVIRONMENT) in values
        child.join(0.002 * attempt)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        assert sample.get(ENVIRONMENT) in values


@pytest.mark.parametrize(
    "record",
    [
        journal.MAGIC,
        journal.MAGIC + b"\xff" * 100,
        journal._record(9, b"some text")[:-1],
    ],
)
def test_a_journal_that_makes_no_sense_is_ignored(build: "Build", record: bytes) -> None:
    sample = build("script")
    sample.put(BOOT, Boot("kept"))
    before = sample.path.read_bytes()
    sample.patch(sample.reserved_offset + journal.PLACE[Kind.SCRIPT][0], record)
    assert sample.get(BOOT) == Boot("kept")
    sample.put(BOOT, Boot("kept"))
    assert sample.path.read_bytes() == before


@pytest.mark.parametrize(("offset", "size"), [(3_166_208, 10), (4 * MIB - 5, 10), (0, 5 * MIB)])
def test_a_forged_journal_does_not_reach_beyond_the_table(
    build: "Build", offset: int, size: int
) -> None:
    sample = build("script")
    place = sample.reserved_offset + journal.PLACE[Kind.SCRIPT][0]
    sample.patch(place, journal._record(offset, b"\xee" * size))
    before = sample.path.read_bytes()
    with open_image(sample.path, writable=True) as fd:
        assert journal.pending(fd, find_layout(fd)) is None
        journal.complete(fd, find_layout(fd))
    after = sample.path.read_bytes()
    assert after[:place] == before[:place]
    assert after[sample.chain_offset :] == before[sample.chain_offset :]


def test_a_full_disk_keeps_the_old_value(build: "Build", small_disk: Path) -> None:
    image = small_disk / "image"
    subprocess.run(["cp", "--sparse=always", build("script").path, image], check=True, timeout=60)
    sample = dataclasses.replace(build("script"), path=image)
    old = {"a": "old"}
    sample.put(ENVIRONMENT, old)
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    new = {"a": random.Random(1).randbytes(200_000).hex()}
    # With no room at all, with some, with enough for the journal, for the journal and a part.
    for pages in (0, 1, 60, 60):
        os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - pages * 4096)
        with pytest.raises(NoSpaceError, match="no space left"):
            sample.put(ENVIRONMENT, new)
        assert sample.get(ENVIRONMENT) == old
        place = sample.reserved_offset + journal.PLACE[Kind.SCRIPT][0]
        assert not any(image.read_bytes()[place : sample.chain_offset])
    (small_disk / "filler").unlink()
    sample.put(ENVIRONMENT, new)
    assert sample.get(ENVIRONMENT) == new
