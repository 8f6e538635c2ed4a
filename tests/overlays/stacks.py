"""Real stacks for the suite that every overlay passes, and the tree that their layers hold."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fimd.casefold.limits import VIEW_LIMITS
from fimd.dwarfs.write import create
from fimd.overlays import KNOWN

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
KINDS = [(name, view) for name in KNOWN for view in ("off", "on")]
"""Every overlay, and the case-insensitive view over each."""


def limits_of(overlay: str, view: str) -> frozenset[str]:
    """The names of the limits that hold for one kind of stack."""
    has_view = view != "off" or overlay == "unionfs"
    limits = [limit for limit in KNOWN[overlay].limits if not (has_view and limit.view_helps)]
    return frozenset(limit.name for limit in (*limits, *(VIEW_LIMITS if has_view else ())))


@dataclass(frozen=True)
class Place:
    """A directory of a mounted stack for one test, and what the overlay can't do there."""

    path: Path
    upper: Path
    limits: frozenset[str]

    def __truediv__(self, name: str) -> Path:
        return self.path / name


class Mounter:
    """The process that mounts one data directory, by one overlay after the other."""

    def __init__(self, base: Path, layers: list[Path], data: Path | None = None) -> None:
        self._base = base
        self.data = data or base / "data"
        self.log = base / "log"
        self.data.mkdir(exist_ok=True)
        words = [base / "fim", self.data, *layers]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, PROJECT / "tests/overlays/serve_stack.py", *words],
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.stdout.close()
        assert status == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()
        assert f" {self._base}/" not in Path("/proc/self/mountinfo").read_text()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()
        return answer

    @contextmanager
    def mounted(self, overlay: str, view: str = "off") -> Iterator[Path]:
        """Mount the stack, which is the overlay asked for and no other."""
        answer = json.loads(self._ask(f"{overlay} {view}"))
        assert (answer["overlay"], answer["warnings"]) == (overlay, [])
        try:
            yield Path(answer["root"])
        finally:
            assert self._ask("") == "unmounted\n"


def fill(directory: Path) -> None:
    """What the base layer holds for each test."""
    for name in ("dir/sub", "empty", "over", "full/deep"):
        (directory / name).mkdir(parents=True)
    (directory / "file").write_text("lower\n")
    (directory / "big").write_bytes(b"0123456789abcdef" * 20_000)
    (directory / "script").write_text("#!/bin/sh\necho ran\n")
    (directory / "script").chmod(0o755)
    (directory / "setuid").write_text("lower\n")
    (directory / "setuid").chmod(0o4755)
    (directory / "setgid").mkdir()
    (directory / "setgid").chmod(0o2755)
    for name in ("a", "b", "gone", "sub/c"):
        (directory / "dir" / name).write_text(f"base {name}\n")
    for name in ("one", "two"):
        (directory / "over" / name).write_text(f"base {name}\n")
    for name in ("x", "deep/y"):
        (directory / "full" / name).write_text(f"base {name}\n")
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "fifo")
    (directory / "first").write_text("linked\n")
    os.link(directory / "first", directory / "second")


def fill_above(directory: Path) -> list[bytes]:
    """What the layer above holds; returns what it deletes."""
    (directory / "dir").mkdir(parents=True)
    (directory / "over").mkdir()
    (directory / "dir" / "b").write_text("above b\n")
    (directory / "over" / "three").write_text("above three\n")
    name = os.fsencode(directory.name)
    return [name + b"/dir/gone", name + b"/over/one", name + b"/over/two"]


def make_layers(base: Path, count: int) -> list[Path]:
    """Make two layers with a directory for each of that many tests, base first."""
    deleted: list[bytes] = []
    for number in range(count):
        fill(base / "lower0" / f"case{number}")
        deleted += fill_above(base / "lower1" / f"case{number}")
    create(base / "lower0", base / "0.layer", level=1)
    create(base / "lower1", base / "1.layer", level=1, whiteouts=deleted)
    return [base / "0.layer", base / "1.layer"]
