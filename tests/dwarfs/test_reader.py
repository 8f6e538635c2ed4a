import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs import DwarfsError, Image
from fimd.dwarfs.blocks import BlockCache

HUGE = 1 << 30
ROOT = Path(__file__).parents[2]


def run(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    return done.stdout.split()


def test_walk_and_read_give_the_manifest(sample: Any) -> None:
    expected = {row[0]: row for row in sample.rows()}
    with Image.open(sample.file, sample.offset, sample.size) as image:
        seen = 0
        for path, facts in image.walk():
            seen += 1
            if not stat.S_ISREG(facts.mode) or facts.size > HUGE or b" " in path or b"\\" in path:
                continue
            row = expected.get(path.decode("ascii", "replace"))
            if row is None:
                continue  # a name that the manifest escapes
            assert row[2:5] == (f"{stat.S_IMODE(facts.mode):04o}", str(facts.uid), str(facts.gid))
            assert row[5] == str(facts.size)
            content = image.read(facts.inode, 0, facts.size + 1)
            assert hashlib.sha256(content).hexdigest() == row[10]
        assert seen == len(expected)


def test_every_name_is_found_by_lookup_and_no_other(sample: Any) -> None:
    with Image.open(sample.file, sample.offset, sample.size) as image:
        for path, facts in list(image.walk())[:400]:
            inode: int | None = image.root
            for name in path.split(b"/") if path else ():
                assert inode is not None
                assert image.lookup(inode, name + b"\xff") is None
                assert image.lookup(inode, b"") is None
                inode = image.lookup(inode, name)
            assert inode is not None
            assert image.stat(inode) == facts


@pytest.mark.parametrize("offset", [0, 1, 4095, 65535, 65536, 100_000, 10**7])
@pytest.mark.parametrize("size", [0, 1, 70_000, 1 << 20])
def test_a_part_of_a_file_is_the_part_of_the_whole(images: Path, offset: int, size: int) -> None:
    with Image.open(images / "made/mix-S12.dwarfs") as image:
        facts = max((facts for _, facts in image.walk()), key=lambda facts: facts.size)
        whole = bytes(image.read(facts.inode, 0, facts.size))
        assert bytes(image.read(facts.inode, offset, size)) == whole[offset : offset + size]


def test_asking_the_wrong_thing_of_an_inode_is_an_os_error(images: Path) -> None:
    with Image.open(images / "made/tiny.dwarfs") as image:
        file = image.lookup(image.root, b"a.txt")
        assert file is not None
        for call, number in (
            (lambda: image.readdir(file), errno.ENOTDIR),
            (lambda: image.lookup(file, b"x"), errno.ENOTDIR),
            (lambda: image.readlink(file), errno.EINVAL),
            (lambda: image.read(image.root, 0, 1), errno.EISDIR),
            (lambda: image.stat(99), errno.ENOENT),
            (lambda: image.stat(-1), errno.ENOENT),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == number


def test_a_descriptor_is_as_good_as_a_path_and_stays_the_callers(images: Path) -> None:
    fd = os.open(images / "made/tiny.dwarfs", os.O_RDONLY)
    try:
        with Image.open(fd) as image:
            assert image.lookup(image.root, b"a.txt") is not None
            assert image.source.name.endswith("tiny.dwarfs")
        assert os.pread(fd, 6, 0) == b"DWARFS"
    finally:
        os.close(fd)


def test_an_image_that_is_refused_leaves_no_descriptor(images: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for path in (images / "damaged").glob("*.dwarfs"):
        try:
            Image.open(path).close()
        except DwarfsError:
            continue
    assert os.listdir("/proc/self/fd") == before


def test_what_an_image_says_of_itself(images: Path) -> None:
    with Image.open(images / "made/cat.dwarfs") as image:
        assert image.compressions == {"zstd": 16, "ricepp": 2, "none": 1, "flac": 9}
        assert image.block_size == 16 << 20
        assert image.created is None or image.created > 1_700_000_000
        assert image.created_by is not None
        assert image.total_size > 0


def test_importing_the_package_is_cheap() -> None:
    heavy = {"pyfuse3", "numpy", "trio", "brotli", "zstandard", "lz4", "asyncio"}
    for what in ("import fimd.dwarfs", "from fimd.dwarfs import Image, sections"):
        assert not heavy & set(run(f"{what}\nimport sys\nprint(*sys.modules)"))


# VmHWM, as the peak that getrusage gives begins with that of the process that forked
PEAK = """
import re, sys, time
import zstandard, xxhash
from fimd.dwarfs import Image
from fimd.dwarfs.reader import Metadata
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
own = peak()
best = 1e9
for _ in range(5):
    began = time.process_time()
    image = Image.open(sys.argv[1])
    best = min(best, time.process_time() - began)
print(best, peak() - own)
"""


def test_opening_an_image_of_50_000_files_takes_milliseconds_and_little_memory(
    images: Path,
) -> None:
    seconds, memory = run(PEAK, str(images / "made/many50k-packall.dwarfs"))
    assert float(seconds) < 0.015
    assert int(memory) < 8 << 20


def test_a_block_is_loaded_once_however_many_ask_for_it() -> None:
    begun = threading.Event()
    go_on = threading.Event()
    loads: list[int] = []

    def load(number: int) -> bytes:
        loads.append(number)
        begun.set()
        assert go_on.wait(60)
        return bytes(10)

    cache = BlockCache(load, 100)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(cache.get(7))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go_on.set()
    for thread in threads:
        thread.join()
    assert loads == [7]
    assert found == [bytes(10)] * 8


def test_the_cache_keeps_what_was_used_last_and_no_more_than_it_may() -> None:
    loads: list[int] = []

    def load(number: int) -> bytes:
        loads.append(number)
        return bytes(40)

    cache = BlockCache(load, 100)
    for number in (1, 2, 1, 3, 1, 2):
        cache.get(number)
    assert loads == [1, 2, 3, 2]
    assert cache.used == 80
    assert cache.peek(3) is None


def test_a_failed_load_fails_for_all_and_is_tried_again() -> None:
    attempts: list[int] = []

    def load(number: int) -> bytes:
        attempts.append(number)
        if len(attempts) == 1:
            raise DwarfsError("broken")
        return b"whole"

    cache = BlockCache(load, 100)
    with pytest.raises(DwarfsError):
        cache.get(1)
    assert cache.get(1) == b"whole"
