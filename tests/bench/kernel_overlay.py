"""The kernel overlay as instances have it against the same overlay mounted by hand.

Run from the project's root: python tests/bench/kernel_overlay.py [ROUNDS]. Both have the same two
DwarFS layers, served by one process each, and uppers of their own on one filesystem; every round
measures the same operations on one after the other, so that ratios are of one machine at one
time; the median is shown. Wanted: at most 1.1 of the time by hand.
"""

import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from fimd.dwarfs.write import create  # noqa: E402 -- found by the line above
from tests.overlays.stacks import Mounter  # noqa: E402

FOLDERS, FILES = 20, 100
WANTED = 1.1


def make_layers(base: Path) -> list[Path]:
    """Two layers of small files: one with all folders, one that replaces a file in each."""
    for folder in range(FOLDERS):
        for number, files in enumerate((FILES, 1)):
            path = base / f"lower{number}" / f"dir{folder:02}"
            path.mkdir(parents=True)
            for file in range(files):
                (path / f"file{file:03}").write_bytes(os.urandom(4096))
    layers = [base / "0.layer", base / "1.layer"]
    for number, layer in enumerate(layers):
        create(base / f"lower{number}", layer, level=1)
    return layers


@contextlib.contextmanager
def by_hand(layers: list[str], base: Path) -> Iterator[Path]:
    """The overlay in a namespace of its own, as who knows mount(8) has it."""
    for name in ("upper", "work", "merged"):
        (base / name).mkdir(parents=True)
    options = f"lowerdir={':'.join(layers)},upperdir={base}/upper,workdir={base}/work,userxattr"
    script = 'mount -t overlay -o "$1" overlay "$2" && echo ready && exec sleep infinity'
    user = ["--user", "--map-root-user"] if os.getuid() else []
    holder = subprocess.Popen(
        ["unshare", *user, "--mount", "--", "sh", "-c", script, "sh", options, base / "merged"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    try:
        yield Path(f"/proc/{holder.pid}/root{base}/merged")
    finally:
        holder.kill()
        holder.wait(60)


def look(root: Path, paths: list[str]) -> None:
    for path in paths:
        os.stat(root / path)


def read(root: Path, paths: list[str]) -> None:
    for path in paths:
        (root / path).read_bytes()


def list_all(root: Path, _paths: list[str]) -> None:
    for _ in range(5):
        for folder in range(FOLDERS):
            os.listdir(root / f"dir{folder:02}")


def write_new(root: Path, paths: list[str]) -> None:
    for path in paths:
        (root / f"{path}.new").write_bytes(bytes(4096))


def rename(root: Path, paths: list[str]) -> None:
    for path in paths:
        os.rename(root / f"{path}.new", root / f"{path}.moved")


def remove(root: Path, paths: list[str]) -> None:
    for path in paths:
        os.unlink(root / f"{path}.moved")


def append(root: Path, paths: list[str]) -> None:
    for path in paths[: len(paths) // 4]:
        with (root / path).open("ab") as file:
            file.write(b"x")


def delete(root: Path, paths: list[str]) -> None:
    for path in paths[len(paths) // 4 : len(paths) // 2]:
        os.unlink(root / path)


OPERATIONS: dict[str, Callable[[Path, list[str]], None]] = {
    "look up": look,
    "read": read,
    "list": list_all,
    "make and write": write_new,
    "rename": rename,
    "remove": remove,
    "append to a layer's file (copied up)": append,
    "delete a layer's file": delete,
}


def measure(root: Path, paths: list[str], action: Callable[[Path, list[str]], None]) -> float:
    began = time.perf_counter()
    action(root, paths)
    return (time.perf_counter() - began) * 1000


def main(rounds: int) -> None:
    """Print milliseconds for each operation and the ratio, and the ratio of all together."""
    dice = random.Random(6)
    paths = [f"dir{folder:02}/file{file:03}" for folder in range(FOLDERS) for file in range(FILES)]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in OPERATIONS}
    with tempfile.TemporaryDirectory() as directory:
        layers = make_layers(Path(directory))
        for turn in range(rounds):
            base = Path(directory, f"round{turn}")
            base.mkdir()
            dice.shuffle(paths)
            with Mounter(base, layers) as mounter, mounter.mounted("bwrap") as ours:
                [stack] = (base / "fim").glob("app/*/stacks/*")
                lower = [os.readlink(stack / "layers" / str(number)) for number in (1, 0)]
                with by_hand(lower, base / "hand") as hand:
                    look(ours, paths)  # what both have of the layers is in the kernel then
                    look(hand, paths)
                    for name, action in OPERATIONS.items():
                        times = {}
                        for root in (ours, hand) if turn % 2 else (hand, ours):
                            times[root] = measure(root, paths, action)
                        taken[name].append((times[ours], times[hand]))
    print(f"{'milliseconds, median of ' + str(rounds):38} {'by hand':>9} {'fimd':>9} {'ratio':>6}")
    for name, pairs in taken.items():
        mine = statistics.median(pair[0] for pair in pairs)
        hand_ = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(ours / hand for ours, hand in pairs)
        print(f"{name:38} {hand_:9.1f} {mine:9.1f} {ratio:6.2f}")
    totals = [
        sum(taken[name][turn][0] for name in taken) / sum(taken[name][turn][1] for name in taken)
        for turn in range(rounds)
    ]
    together = statistics.median(totals)
    print(f"{'all together':38} {'':9} {'':9} {together:6.2f}  (wanted: at most {WANTED})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
