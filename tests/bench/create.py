"""Sizes, times and peak memory of making images, beside mkdwarfs's and `zstd --ultra -22`.

python tests/bench/dwarfs_create.py [--levels 1,3,5,7,9] [--repeat 3]

Times are the best of the repetitions, each in a process of its own; a ratio is to the time that one
thread of zstd took for a tar of the same tree in this run. Exits with 1 where a figure misses its
target: mkdwarfs 0.15.3's sizes, 1.15 of its ratios, 60 MB/s at levels 1 and 3.
"""

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES = ROOT.parent / "shared" / "images" / "made"

CHILD = """
import json, os, resource, sys, time
from fimd.dwarfs.write import create
source, image, level = sys.argv[1], sys.argv[2], int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
create(source, image, level=level)
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
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


def measure(source: Path, image: Path, level: int, repeat: int) -> dict[str, float]:
    """The repetition that took the least time."""
    runs = []
    for _ in range(repeat):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, source, image, str(level)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        runs.append(json.loads(done.stdout))
    return dict(min(runs, key=lambda run: run["wall"]))


def zstd_seconds(source: Path, scratch: Path, repeat: int) -> tuple[float, float]:
    """How long one thread of zstd takes for a tar of the tree, and how much of that it works."""
    tar = scratch / "tree.tar"
    with tarfile.open(tar, "w") as file:
        file.add(source, ".")
    runs = []
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        began = time.perf_counter()
        command = ["zstd", "--ultra", "-22", "--single-thread", "-q", "-f", "-o", tar.name + ".zst"]
        subprocess.run([*command, tar.name], cwd=scratch, check=True)
        wall = time.perf_counter() - began
        runs.append((wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before))
    return min(runs)


def misses(target: Target, run: dict[str, float], ratio: float | None, rate: float) -> list[str]:
    """What does not reach the target."""
    found = []
    if run["size"] > target.size:
        found.append("size")
    if target.ratio is not None and ratio is not None and ratio > target.ratio * 1.15:
        found.append("time")
    if target.rate is not None and rate < target.rate:
        found.append("rate")
    return found


def main() -> int:
    """Measure and print."""
    from fimd.dwarfs import Image
    from fimd.dwarfs.extract import extract

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--levels", default="", help="such as 1,3; all that have a target")
    parser.add_argument("--trees", default="", help="such as t30-l7; all")
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    chosen = {int(level) for level in arguments.levels.split(",") if level}
    failed = False
    print(
        f"{'tree':22} lvl {'bytes':>10} {'mkdwarfs':>10} {'wall':>7} {'cpu':>7} {'MB/s':>6}"
        f" {'ratio':>6} {'allowed':>7} {'peak':>8}"
    )
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        for name, targets in TREES.items():
            if arguments.trees and name not in arguments.trees.split(","):
                continue
            source = scratch / name
            source.mkdir()
            with Image.open(IMAGES / f"{name}.dwarfs") as image:
                extract(image, source)
                content = image.total_size
            timed = any(
                target.ratio for level, target in targets.items() if not chosen or level in chosen
            )
            reference = None
            if timed:
                reference, cpu = zstd_seconds(source, scratch, arguments.repeat)
                print(f"{name:22} zstd --ultra -22, one thread: {reference:.2f} s, {cpu:.2f} s CPU")
            for level, target in targets.items():
                if chosen and level not in chosen:
                    continue
                run = measure(source, scratch / "image", level, arguments.repeat)
                ratio = run["wall"] / reference if reference else None
                rate = content / run["wall"] / 1e6
                missed = misses(target, run, ratio, rate)
                failed |= bool(missed)
                print(
                    f"{name:22} {level:3} {run['size']:10} {target.size:10} {run['wall']:6.2f}s"
                    f" {run['cpu']:6.2f}s {rate:6.1f} {f'{ratio:.3f}' if ratio else '-':>6}"
                    f" {f'{target.ratio * 1.15:.3f}' if target.ratio else '-':>7}"
                    f" {run['peak'] / 2**20:5.0f}MiB {' '.join(missed)}",
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
