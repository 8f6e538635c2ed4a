"""Blocks for an event loop: parts of them early, and never more than there is."""

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard

from fimd.dwarfs import DwarfsError, Image, codecs, zstd
from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.format import SECTION_HEADER, Compression
from fimd.dwarfs.loading import Blocks
from fimd.dwarfs.memory import Memory
from fimd.dwarfs.sections import SectionTable
from fimd.dwarfs.tree import Extent
from fimd.dwarfs.write import create

DATA = random.Random(1).randbytes(1 << 20) * 6
FRAME = zstandard.compress(random.Random(2).randbytes(4 << 20) + DATA, 1)
needs_library = pytest.mark.skipif(not zstd.is_available(), reason="there is no libzstd")


class SlowImage:
    """Gives a block of 100 bytes half by half, each when it is told to go on."""

    block_size = 100

    def __init__(self, error: DwarfsError | None = None) -> None:
        self.steps = threading.Semaphore(0)
        self.loads: list[int] = []
        self._error = error

    def load_block_in_steps(self, number: int, _: Memory) -> Iterator[tuple[Buffer, int]]:
        self.loads.append(number)
        block = memoryview(bytearray(100))
        for end in (50, 100):
            assert self.steps.acquire(timeout=60)
            if end == 100 and self._error:
                raise self._error
            block[end - 50 : end] = bytes([number]) * 50
            yield block.toreadonly(), end


def blocks(image: SlowImage, pool: ThreadPoolExecutor, capacity: int = 1000) -> Blocks:
    return Blocks(cast(Any, image), capacity, pool, Memory())


def test_no_more_is_decompressed_at_a_time_than_is_kept() -> None:
    async def read() -> None:
        image = SlowImage()
        with ThreadPoolExecutor(4) as pool:
            kept = blocks(image, pool, capacity=200)
            wanted = [kept.load(number, 100) for number in range(4)]
            await asyncio.sleep(0.05)
            assert sorted(image.loads) == [0, 1]
            for _ in range(8):
                image.steps.release()
            found = await asyncio.gather(*wanted)
            assert [bytes(block) for block in found] == [bytes([n]) * 100 for n in range(4)]

    asyncio.run(read())


def test_a_reader_gets_what_is_there_before_the_rest_is() -> None:
    async def read() -> None:
        image = SlowImage()
        with ThreadPoolExecutor(2) as pool:
            kept = blocks(image, pool)
            early, late = kept.load(3, 50), kept.load(3, 51)
            assert kept.peek(3, 1) is None
            image.steps.release()
            assert bytes((await early)[:50]) == b"\3" * 50
            assert kept.peek(3, 50) is not None
            assert kept.peek(3, 51) is None
            assert not late.done()
            image.steps.release()
            assert await late == b"\3" * 100
            assert kept.peek(3, 100) == b"\3" * 100
        assert image.loads == [3]

    asyncio.run(read())


def test_an_error_in_the_rest_is_one_only_for_who_wants_the_rest() -> None:
    async def read() -> None:
        image = SlowImage(DamagedError("cut short"))
        with ThreadPoolExecutor(2) as pool:
            kept = blocks(image, pool)
            early, late = kept.load(3, 50), kept.load(3, 100)
            image.steps.release(2)
            assert bytes((await early)[:50]) == b"\3" * 50
            with pytest.raises(DamagedError, match="cut short"):
                await late
            assert kept.peek(3, 1) is None

    asyncio.run(read())


def test_a_large_file_leaves_what_others_need_in_the_cache() -> None:
    async def read() -> None:
        image = SlowImage()
        image.steps.release(1000)
        file = FileMap([Extent(number, 0, 100) for number in range(1, 9)])
        with ThreadPoolExecutor(1) as pool:  # a block is in the cache before the next one begins
            kept = blocks(image, pool)
            await kept.load(0, 100)
            for number in range(1, 9):
                await kept.load(number, 100)
                kept.passed(file, number, 100)
            assert [number for number in range(9) if kept.peek(number, 100)] == [0, 8]
            kept.passed(FileMap([Extent(0, 0, 100)]), 0, 100)  # no more than the block: it may
            kept.passed(file, 8, 99)  # have neighbours; and one that was left in the middle
            assert [number for number in range(9) if kept.peek(number, 100)] == [0, 8]

    asyncio.run(read())


@needs_library
def test_a_large_block_comes_in_steps_each_of_which_is_right() -> None:
    whole = zstandard.decompress(FRAME)
    ends = []
    for block, end in codecs.decompress_in_steps(Compression.ZSTD, FRAME, len(whole)):
        assert block[:end] == whole[:end]
        ends.append(end)
    assert len(ends) > 2
    assert ends == sorted(set(ends))
    assert ends[-1] == len(whole)


def test_without_the_library_it_comes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "is_available", lambda: False)
    whole = zstandard.decompress(FRAME)
    ((block, end),) = codecs.decompress_in_steps(Compression.ZSTD, FRAME, len(whole))
    assert (block, end) == (whole, len(whole))
    with pytest.raises(DamagedError):
        codecs.decompress(Compression.ZSTD, FRAME[:-100], len(whole))


@needs_library
@pytest.mark.parametrize("cut", [1, 100, 1 << 20, len(FRAME) - 10])
def test_a_frame_cut_short_never_comes_to_its_end(cut: int) -> None:
    whole = zstandard.decompress(FRAME)
    done = 0
    steps = codecs.decompress_in_steps(Compression.ZSTD, FRAME[:-cut], len(whole))
    try:
        for block, done in steps:
            assert block[:done] == whole[:done]
    except DamagedError:
        assert done < len(whole)
    else:
        pytest.fail("a frame that was cut short is whole")


def image_of_a_large_file(directory: Path) -> Path:
    (directory / "tree").mkdir()
    digits = bytes(value & 15 for value in range(256))
    content = random.Random(3).randbytes(3 << 20).translate(digits)
    (directory / "tree" / "file").write_bytes(content)
    create(directory / "tree", directory / "image", level=5)
    return directory / "image"


@needs_library
def test_steps_come_only_where_a_checksum_vouches_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image_of_a_large_file(tmp_path)
    with Image.open(path) as image:
        assert len(list(image.load_block_in_steps(0))) > 1
        monkeypatch.setattr(SectionTable, "header_size", SECTION_HEADER.size)
        monkeypatch.setattr(SectionTable, "has_checksums", False)
        assert len(list(image.load_block_in_steps(0))) == 1
        section = image.blocks[0]
    data = bytearray(path.read_bytes())
    data[section.offset + section.size - 100] ^= 1
    path.write_bytes(data)
    monkeypatch.undo()
    with Image.open(path) as image, pytest.raises(DamagedError, match="checksum"):
        next(image.load_block_in_steps(0))
