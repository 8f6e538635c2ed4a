"""A layer served by the embedded DwarFS, beside the same tree on the disk with cold caches.

Every cold figure is of a mount made for it, and of a tree whose data and names the kernel was asked
to forget (as root; a plain user can only have the data forgotten).
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from fimd.dwarfs import Image
from fimd.dwarfs.write import create
from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds, rate, seconds

ROOT = Path(__file__).parents[2]
_LEVEL = 7
_LARGE = 256 << 20  # many blocks, of 16 MiB each: the first ones wait for memory and for each other
_CACHE = 128 << 20  # what a layer has where nothing is set
_ROUNDS = 3

SERVE = f"""
import asyncio, sys
from fimd.dwarfs import Image
from fimd.dwarfs.serve import serve
with Image.open(sys.argv[1]) as image:
    asyncio.run(serve(image, sys.argv[2], fsname="bench", cache_bytes={_CACHE},
                      on_ready=lambda: print("ready", flush=True)))
"""


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(image), str(point)], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)


def read_whole(root: Path) -> int:
    """Bytes of every file, in large reads."""
    size = 0
    buffer = bytearray(1 << 20)
    for path in files(root):
        fd = os.open(path, os.O_RDONLY)
        while count := os.readv(fd, [buffer]):
            size += count
        os.close(fd)
    return size


def files(root: Path) -> list[str]:
    return [os.path.join(where, name) for where, _, names in os.walk(root) for name in names]


def open_each(paths: list[str]) -> int:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 1 << 16)
        os.close(fd)
    return len(paths)


def find(root: Path) -> int:
    done = subprocess.run(["find", root, "-ls"], check=True, capture_output=True)
    return done.stdout.count(b"\n")


def stat_each(root: Path) -> int:
    count = 0
    pending = [os.fspath(root)]
    while pending:
        for entry in os.scandir(pending.pop()):
            entry.stat(follow_symlinks=False)
            count += 1
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return count


def make_small(root: Path) -> None:
    """A hundred directories of a hundred files, of up to some KiB of words."""
    source = random.Random(1)
    words = [source.randbytes(4).hex().encode() for _ in range(2000)]
    for directory in range(100):
        (root / f"directory-{directory:03}").mkdir(parents=True)
        for file in range(100):
            content = b" ".join(source.choices(words, k=source.randrange(10, 600)))
            (root / f"directory-{directory:03}" / f"file-{file:03}.txt").write_bytes(content)


def make_large(root: Path, size: int) -> None:
    """One file of what programs are made of, changed so that no part is there twice."""
    root.mkdir()
    pieces = sorted(Path("/usr/lib").rglob("*.so*")) + sorted(Path("/usr/bin").iterdir())
    with (root / "large").open("wb") as out:
        for number, path in enumerate(path for path in pieces if path.is_file()):
            turned = bytes((value * 2 * number + value) & 255 for value in range(256))
            out.write(path.read_bytes().translate(turned))
            if out.tell() > size:
                break


def forget(root: Path) -> None:
    """Have the kernel drop what it has of a tree."""
    for path in files(root):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if os.getuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("2")  # names and attributes, of all trees


@contextmanager
def mounted_by_dwarfs(image: Path, point: Path) -> Iterator[Path]:
    """Mount by the external dwarfs for a while."""
    subprocess.run(["dwarfs", image, point, "-o", f"cachesize={_CACHE >> 20}m"], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


@contextmanager
def forgotten(tree: Path, _point: Path) -> Iterator[Path]:
    """Give the tree itself, with cold caches."""
    forget(tree)
    yield tree


Place = tuple[str, Callable[[Path, Path], AbstractContextManager[Path]]]
"""The ending of the tree's name, and what shows it at a mount point."""


def measure() -> Iterator[Row]:
    """Read a large file, many small ones, and only names and attributes."""
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        work = Path(name)
        (work / "mnt").mkdir()
        make_small(work / "small")
        make_large(work / "large", _LARGE)
        create(work / "small", work / "small.dwarfs", level=4)
        create(work / "large", work / "large.dwarfs", level=_LEVEL)
        places: dict[str, Place] = {
            "embedded": (".dwarfs", mounted),
            "disk, cold": ("", forgotten),
            **(
                {"external dwarfs": (".dwarfs", mounted_by_dwarfs)}
                if shutil.which("dwarfs")
                else {}
            ),
        }
        measured = _in_turn(work, places)
        for beside in list(places)[1:]:
            for what, rounds in measured.items():
                yield compared(what, rounds, "embedded", beside)
        with Image.open(work / "large.dwarfs") as opened:
            alone = rate(lambda: sum(len(opened.load_block(n)) for n in range(len(opened.blocks))))
        size = (work / "large" / "large").stat().st_size
        speed = size / next(iter(measured.values())).median("embedded")
        decompressed = f"{alone / 1e6:.0f}"
        beside = "what one thread decompresses"
        yield Row("that file, MB/s", f"{speed / 1e6:.0f}", beside, decompressed, speed / alone)


def _in_turn(work: Path, places: dict[str, Place]) -> dict[str, Rounds]:
    """Measure each kind of reading in each place; a place is shown anew for all but the second."""
    names = [path.removeprefix(f"{work}/small/") for path in files(work / "small")]
    large = f"a file of {_LARGE >> 20} MiB, level {_LEVEL}, read in sequence"
    cold, again, found, listed = (
        "10 000 small files opened and read",
        "the same again",
        "`find -ls` of 10 000 files",
        "scandir and stat of 10 000 files",
    )
    measured = {what: Rounds() for what in (large, cold, again, found, listed)}
    for number in range(_ROUNDS):
        for kind in list(places)[:: -1 if number % 2 else 1]:
            ending, place = places[kind]

            def shown(tree: str) -> AbstractContextManager[Path]:
                return place(work / f"{tree}{ending}", work / "mnt")  # noqa: B023 - used at once

            with shown("large") as root:
                measured[large].note(kind, seconds(partial(read_whole, root)))
            with shown("small") as root:
                paths = [f"{root}/{name}" for name in names]
                measured[cold].note(kind, seconds(partial(open_each, paths)))
                measured[again].note(kind, seconds(partial(open_each, paths)))
            for what, action in ((found, find), (listed, stat_each)):
                with shown("small") as root:
                    measured[what].note(kind, seconds(partial(action, root)))
    return measured
