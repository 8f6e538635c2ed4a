"""How fast a DwarFS image is opened and served: figures, and ratios to the same tree unpacked.

Run it on an idle machine: `python tests/bench/dwarfs_serve.py [--level N] [--runs N]`. It makes an
image of 10 000 small files and one of a large file, mounts each afresh for every cold figure, and
keeps the best of the runs. Ratios are to the plain directory on the temporary file system, read by
the same code, whose data is in the page cache; decompression's own speed stands beside.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fimd.dwarfs import Image  # noqa: E402
from fimd.dwarfs.write import create  # noqa: E402

SERVE = """
import asyncio, sys
from fimd.dwarfs import Image
from fimd.dwarfs.serve import serve
with Image.open(sys.argv[1]) as image:
    asyncio.run(serve(image, sys.argv[2], fsname="bench", cache_bytes=512 << 20,
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


def timed(work: Callable[[], int]) -> float:
    """Units of work a second."""
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


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


def opening(image: Path) -> tuple[float, float]:
    """CPU milliseconds and MiB to open an image and find the root's first entry."""
    best = 1e9
    for _ in range(5):
        began = time.process_time()
        with Image.open(image) as opened:
            opened.stat(opened.root)
        best = min(best, time.process_time() - began)
    code = (
        "import re, sys; from fimd.dwarfs import Image; import zstandard, xxhash;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "own = peak(); image = Image.open(sys.argv[1]); print(peak() - own)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(image)], check=True, capture_output=True, cwd=ROOT
    )
    return best * 1e3, int(done.stdout) / 1024


def decompression(image: Path) -> float:
    """Bytes a second of one thread."""
    with Image.open(image) as opened:
        return timed(lambda: sum(len(opened.load_block(n)) for n in range(len(opened.blocks))))


def line(name: str, figure: float, unit: str, beside: float, target: float) -> None:
    ratio = f"{figure / beside:6.2f} of plain" if beside else " " * 15
    print(f"{name:34} {figure:10.0f} {unit:10} {ratio}  (target {target:.0f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", type=int, default=7, help="of the large file's image")
    parser.add_argument("--size", type=int, default=96, help="MiB of the large file")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    many = ROOT.parent / "shared/images/made/many50k-packall.dwarfs"
    if many.exists():
        milliseconds, mebibytes = opening(many)
        print(
            f"opening 50 000 files: {milliseconds:.1f} ms of CPU, {mebibytes:.1f} MiB", flush=True
        )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        point = work / "mnt"
        point.mkdir()
        make_small(work / "small")
        make_large(work / "big", options.size << 20)
        create(work / "small", work / "small.dwarfs", level=4)
        create(work / "big", work / "big.dwarfs", level=options.level)
        figures: dict[str, float] = {}

        def note(key: str, work: Callable[[], int]) -> None:
            figures[key] = max(figures.get(key, 0), timed(work))

        paths = [path.replace(str(work / "small"), str(point)) for path in files(work / "small")]
        for _ in range(options.runs):
            note("plain open", lambda: open_each(files(work / "small")))
            note("plain find", lambda: find(work / "small"))
            note("plain stat", lambda: stat_each(work / "small"))
            note("plain read", lambda: read_whole(work / "big"))
            with mounted(work / "small.dwarfs", point):
                note("find", lambda: find(point))
                note("open cold", lambda: open_each(paths))
                note("open warm", lambda: open_each(paths))
            with mounted(work / "small.dwarfs", point):
                note("stat", lambda: stat_each(point))
            with mounted(work / "small.dwarfs", point):
                note("open fresh", lambda: open_each(paths))
            with mounted(work / "big.dwarfs", point):
                note("read cold", lambda: read_whole(point))
                note("read warm", lambda: read_whole(point))
        one = decompression(work / "big.dwarfs")
        mb = 1e6
        plain = figures["plain read"] / mb
        print(f"one thread decompresses {one / mb:.0f} MB/s")
        line("large file cold", figures["read cold"] / mb, "MB/s", plain, 700)
        line("large file warm", figures["read warm"] / mb, "MB/s", plain, plain)
        opens = figures["plain open"]
        line("small files cold, listed before", figures["open cold"], "files/s", opens, 3500)
        line("small files cold, not listed", figures["open fresh"], "files/s", opens, 3500)
        line("small files warm", figures["open warm"], "files/s", opens, 8000)
        line("find -ls cold", figures["find"], "entries/s", figures["plain find"], 100_000)
        line("scandir and stat cold", figures["stat"], "entries/s", figures["plain stat"], 100_000)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"the largest server had {peak:.0f} MiB (cache 512 MiB)")


if __name__ == "__main__":
    main()
