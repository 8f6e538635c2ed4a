"""Sizes, times and memory of making images, beside mkdwarfs 0.15.3 and `zstd --ultra -22`.

Each is made in a process of its own, in turn with one thread of zstd that packs a tar of the tree.
mkdwarfs's sizes, and its times by that of zstd, were measured once elsewhere.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fimd.dwarfs import Image
from fimd.dwarfs.extract import extract
from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds, seconds
from tests.bench.world import MissingError

ROOT = Path(__file__).parents[2]
IMAGES = ROOT.parent / "shared" / "images" / "made"

_ROUNDS = 2
_ALLOWED = 1.15
"""Of mkdwarfs's time by that of zstd."""
CHILD = """
import json, os, resource, sys, time
from fimd.dwarfs.write import create
source, image, level = sys.argv[1], sys.argv[2], int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall = time.perf_counter()
create(source, image, level=level)
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    "size": os.path.getsize(image),
}))
"""


@dataclass(frozen=True)
class Target:
    """What mkdwarfs 0.15.3 makes of a tree: bytes, and its time by that of zstd, where known."""

    size: int
    ratio: float | None = None
    rate: float | None = None  # MB/s, ours to reach


TREES: dict[str, dict[int, Target]] = {
    "t30-l7": {
        1: Target(14_165_832, rate=60),
        3: Target(11_387_141, rate=60),
        5: Target(7_693_426, 0.38),
        7: Target(7_332_109, 0.48),
        9: Target(6_447_747, 0.90),
    },
    "many50k-packall": {1: Target(1_513_449), 7: Target(893_894)},
    "repeat300-l7-S20-B32": {level: Target(3_050_000) for level in range(3, 8)},
}


def measure() -> Iterator[Row]:
    """Make images of the trees of the shared images, where those are."""
    if not IMAGES.is_dir():
        raise MissingError(f"{IMAGES.name} with the trees to pack is not there")
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        for tree, targets in TREES.items():
            source = Path(name) / tree
            source.mkdir()
            with Image.open(IMAGES / f"{tree}.dwarfs") as image:
                extract(image, source)
                content = image.total_size
            yield from _levels(source, content, targets)


def _levels(source: Path, content: int, targets: dict[int, Target]) -> Iterator[Row]:
    packed, rounds = source.with_suffix(".image"), Rounds()
    tar = source.with_suffix(".tar")
    with tarfile.open(tar, "w") as file:
        file.add(source, ".")
    zstd = ["zstd", "--ultra", "-22", "--single-thread", "-q", "-f", str(tar)]
    timed = any(target.ratio for target in targets.values())
    peaks, sizes = dict.fromkeys(targets, 0.0), dict.fromkeys(targets, 0)
    for _ in range(_ROUNDS):
        if timed:
            rounds.note("zstd", seconds(partial(subprocess.run, zstd, check=True)))
        for level in targets:
            made = _make(source, packed, level)
            rounds.note(str(level), made["wall"])
            peaks[level], sizes[level] = max(peaks[level], made["peak"]), int(made["size"])
    for level, target in targets.items():
        what = f"{source.name}, level {level}"
        yield _size(what, sizes[level], target.size, peaks[level])
        if target.ratio is not None:
            most = target.ratio * _ALLOWED
            yield compared(
                f"{what}: time", rounds, str(level), "zstd", unit="s", scale=1, most=most
            )
        if target.rate is not None:
            rate = content / rounds.median(str(level)) / 1e6
            reach = f"≥ {target.rate:g} MB/s"
            yield Row(f"{what}: rate", f"{rate:.1f} MB/s", reach=reach, reached=rate >= target.rate)


def _size(what: str, size: int, target: int, peak: float) -> Row:
    figure = f"{size} bytes, with {peak / 2**20:.0f} MiB"
    return Row(
        f"{what}: size", figure, "mkdwarfs", f"{target} bytes", size / target, "≤ 1", size <= target
    )


def _make(source: Path, image: Path, level: int) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, str(source), str(image), str(level)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))
