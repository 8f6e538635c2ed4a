"""The kernel overlay as instances have it beside the same overlay mounted by hand.

Both have the same two DwarFS layers, served by one process each, and uppers of their own on one
filesystem. Every round mounts both anew, and does the same to both, slice by slice in turn: what
else uses the disk falls on both.
"""

import contextlib
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

from fimd.dwarfs.write import create
from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds, seconds
from tests.overlays.stacks import Mounter

FOLDERS, FILES = 20, 100
_ROUNDS = 7
_SLICE = 40
"""Files."""
_MOST = 1.1
"""Of the time by hand, for all operations together."""
_OURS, _THEIRS = "fimd", "mounted by hand"


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


def list_all(root: Path, paths: list[str]) -> None:
    for path in paths[: len(paths) // 20]:
        os.listdir((root / path).parent)


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


def measure() -> Iterator[Row]:
    """Measure each operation, and all of them together."""
    generator = random.Random(6)
    paths = [f"dir{folder:02}/file{file:03}" for folder in range(FOLDERS) for file in range(FILES)]
    measured, together = {name: Rounds() for name in OPERATIONS}, Rounds()
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        layers = make_layers(Path(name))
        for number in range(_ROUNDS):
            generator.shuffle(paths)
            base = Path(name, f"round{number}")
            base.mkdir()
            with both(base, layers) as roots:
                for root in roots.values():
                    look(root, paths)  # what both have of the layers is in the kernel then
                taken = {kind: dict.fromkeys(OPERATIONS, 0.0) for kind in roots}
                slices = [paths[start : start + _SLICE] for start in range(0, len(paths), _SLICE)]
                for operation, part in product(OPERATIONS, slices):
                    for kind in list(roots)[:: generator.choice((-1, 1))]:
                        action = partial(OPERATIONS[operation], roots[kind], part)
                        taken[kind][operation] += seconds(action)
            for kind, by_operation in taken.items():
                together.note(kind, sum(by_operation.values()))
                for operation, value in by_operation.items():
                    measured[operation].note(kind, value)
    for operation, rounds in measured.items():
        yield compared(operation, rounds, _OURS, _THEIRS)
    yield compared("all of these together", together, _OURS, _THEIRS, most=_MOST)


@contextlib.contextmanager
def both(base: Path, layers: list[Path]) -> Iterator[dict[str, Path]]:
    """Mount the overlay twice over one set of layers."""
    with Mounter(base, layers) as mounter, mounter.mounted("bwrap") as ours:
        [stack] = (base / "fim").glob("app/*/stacks/*")
        lower = [os.path.realpath(stack / "layers" / str(number)) for number in (1, 0)]
        with by_hand(lower, base / "hand") as hand:
            yield {_OURS: ours, _THEIRS: hand}
