"""Sections come out in order, with what a reader of any release needs, or not at all."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fimd.dwarfs import Image
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.sections import read_header
from fimd.dwarfs.write import LEVELS, PackError, Settings, create, create_from
from tests.dwarfs.write.trees import Made, found
from tests.support.tmpfs import tmpfs


def mixed(seed: int = 1) -> Made:
    """A few blocks at the lower levels: noise, text, repetitions, duplicates."""
    rng = random.Random(seed)
    noise = rng.randbytes(400_000)
    made = Made()
    for directory in range(5):
        made.directory(b"d%d" % directory)
        for file in range(20):
            words = b" ".join(b"%d" % rng.randrange(10**6) for _ in range(rng.randrange(3000)))
            made.file(b"d%d/%d" % (directory, file), words, mtime_ns=rng.randrange(10**18))
    made.file(b"noise", noise * 4, b"x", noise)
    made.file(b"twin", noise)
    made.file(b"twin too", noise)
    made.file(b"code", b"\x7fELF" + bytes(14) + b"\x3e\0", noise[::-1])
    return made


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("level", [1, 3, 5, 7, 9])
def test_the_same_tree_gives_the_same_bytes(level: int, tmp_path: Path) -> None:
    made = mixed()
    results = []
    for threads in (1, 2, 5):
        random.Random(threads).shuffle(made.entries)
        made.create(tmp_path / "image", level=level, threads=threads)
        results.append((tmp_path / "image").read_bytes())
    assert results[0] == results[1] == results[2]
    assert found(tmp_path / "image") == made.expected()


def test_the_sections_are_as_every_release_wants_them(tmp_path: Path) -> None:
    summary = mixed().create(tmp_path / "image", level=1)
    with Image.open(tmp_path / "image") as image:
        assert image.table.minor == 5
        assert image.table.indexed
        kinds = [section.type for section in image.table.sections]
        headers = [
            read_header(image.source, image.table, section) for section in image.table.sections
        ]
        assert not image.metadata.features
        assert image.metadata.root.optional(18) is not None  # options: without it dwarfsck crashes
        assert image.metadata.root.optional(17) is not None
        metadata = image.section_content(image.table.sections[-2], 1 << 20)
    assert kinds == [
        *[SectionType.BLOCK] * summary.blocks,
        SectionType.METADATA_V2_SCHEMA,
        SectionType.METADATA_V2,
        SectionType.SECTION_INDEX,
    ]
    assert headers[-1].compression == Compression.NONE
    assert metadata[-8:] == bytes(8)


def test_what_does_not_become_smaller_is_stored_as_it_is(tmp_path: Path) -> None:
    made = Made()
    made.file(b"noise", os.urandom(1 << 20))
    made.file(b"text", b"text" * (1 << 18))
    made.create(tmp_path / "image", level=1)
    with Image.open(tmp_path / "image") as image:
        assert image.compressions == {"none": 1, "lz4": 1}


def test_the_time_of_making_is_only_written_where_it_is_given(tmp_path: Path) -> None:
    made = Made()
    made.create(tmp_path / "image", created=1_700_000_000)
    with Image.open(tmp_path / "image") as image:
        assert image.created == 1_700_000_000
    made.create(tmp_path / "image")
    with Image.open(tmp_path / "image") as image:
        assert image.created is None


def test_an_image_begins_where_the_descriptor_stands(tmp_path: Path) -> None:
    made = mixed()
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"a header")
        create_from(made.entries, made.read, file.fileno(), Settings(level=1))
    made.create(tmp_path / "image", level=1)
    assert (tmp_path / "file").read_bytes() == b"a header" + (tmp_path / "image").read_bytes()


def test_an_image_can_be_written_to_a_pipe(tmp_path: Path) -> None:
    made = mixed()
    made.create(tmp_path / "image", level=1)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(process.stdout.read()))  # type: ignore[union-attr]
        reader.start()
        create_from(made.entries, made.read, process.stdin.fileno(), Settings(level=1))
        process.stdin.close()
        reader.join(20)
    assert received[0] == (tmp_path / "image").read_bytes()


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("level", [1, 7, 9])
def test_cancelling_ends_soon_and_leaves_nothing(level: int, tmp_path: Path) -> None:
    rng = random.Random(level)
    source = tmp_path / "source"
    source.mkdir()
    words = [b"%d" % rng.randrange(10**6) for _ in range(1 << 16)]
    with (source / "f").open("wb") as file:
        for _ in range(60):
            file.write(b" ".join(rng.choices(words, k=1 << 16)))
    asked_at: list[float] = []
    began = time.monotonic()

    def cancelled() -> bool:
        if time.monotonic() - began > 1 and not asked_at:
            asked_at.append(time.monotonic())
        return bool(asked_at)

    if level == 1:
        began -= 0.95
    with pytest.raises(CancelledError):
        create(source, tmp_path / "image", level=level, cancelled=cancelled)
    assert time.monotonic() - asked_at[0] < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.usefixtures("no_thread_left")
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "noise").write_bytes(os.urandom(4 << 20))
    with tmpfs(tmp_path / "small", "1m") as disk:
        with pytest.raises(PackError, match=r"small/image: cannot write .* No space left"):
            create(tmp_path / "source", disk / "image")
        assert list(disk.iterdir()) == []


@pytest.mark.usefixtures("no_thread_left")
def test_an_error_in_the_source_ends_the_threads() -> None:
    made = mixed()
    made.entries.append(made.entries[-1])
    with pytest.raises(PackError, match="occurs twice"):
        create_from(made.entries, made.read, 1)


MEMORY = """
import os, resource, sys
from fimd.dwarfs.write import Entry, Settings, create_from
level, size = map(int, sys.argv[1:])
def read(entry):
    for _ in range(entry.size >> 20):
        yield os.urandom(1 << 19) + bytes(1 << 19)
if size:
    entries = [Entry(b"", 0o40755), Entry(b"file", 0o100644, size=size)]
    output = os.open("/dev/null", os.O_WRONLY)
    create_from(entries, read, output, Settings(level=level, threads=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
"""


def peak(level: int, size: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(level), str(size)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("level", [1, 3])
def test_memory_does_not_grow_with_the_tree(level: int) -> None:
    block = LEVELS[level].block_size
    in_flight = 2 + 1 + 1  # those that the threads work on, one that waits, one being filled
    compressed = 2 + 1
    bound = block * (LEVELS[level].lookback + in_flight + compressed) + (24 << 20)
    assert peak(level, 200 << 20) - peak(level, 0) < bound
