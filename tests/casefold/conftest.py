"""A real view over real sources, and the promise that nothing of it is left afterwards."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 20.0

Serve = Callable[..., "View"]
Union = Callable[[str, Path], contextlib.AbstractContextManager[Path]]
Serving = Callable[..., contextlib.AbstractContextManager["View"]]


@dataclass(frozen=True)
class View:
    """A mounted view: where it is, what it shows, and what it has logged so far."""

    root: Path
    source: Path
    log: Path


def is_mounted(path: Path) -> bool:
    return any(
        line.split()[1] == str(path) for line in Path("/proc/mounts").read_text().splitlines()
    )


def unmount(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while is_mounted(path):
        subprocess.run(
            ["fusermount3", "-u", str(path)], capture_output=True, timeout=SECONDS, check=False
        )
        if time.monotonic() > deadline:  # end the test, not the machine
            subprocess.run(["fusermount3", "-uz", str(path)], timeout=SECONDS, check=False)
            pytest.fail(f"{path} could not be unmounted")
        time.sleep(0.01)


@contextlib.contextmanager
def serving(source: Path, mount_point: Path, *words: str, log: Path) -> Iterator[View]:
    """Serve the view until the block ends; it must then leave by itself, without complaints."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, PROJECT / "tests/casefold/serve_view.py", source, mount_point, *words],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield View(mount_point, source, log)
    finally:
        unmount(mount_point)
        try:
            status = process.wait(SECONDS)
        finally:
            process.kill()
            process.stdout.close()
    assert status == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert not is_mounted(mount_point)


@pytest.fixture(name="union")
def _union() -> Union:
    return union


@pytest.fixture(name="serving")
def _serving() -> Serving:
    return serving


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves a directory's view (`preserve` is a further word) until the test ends."""
    with contextlib.ExitStack() as stack:

        def mount(source: Path, *words: str) -> View:
            mount_point = tmp_path / f"view{len(list(tmp_path.glob('view*')))}"
            mount_point.mkdir()
            log = tmp_path / f"{mount_point.name}.log"
            return stack.enter_context(serving(source, mount_point, *words, log=log))

        yield mount


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def view(source: Path, serve: Serve) -> View:
    return serve(source)


@pytest.fixture
def preserving(source: Path, serve: Serve) -> View:
    return serve(source, "preserve")


@contextlib.contextmanager
def union(kind: str, directory: Path) -> Iterator[Path]:
    """A union of the directories `lower0` (topmost of them), `lower1` and `upper` below one."""
    program = {"unionfs": "unionfs", "overlayfs": "fuse-overlayfs"}[kind]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    mount_point, work = directory / "merged", directory / "work"
    for path in (mount_point, work, *(directory / name for name in ("upper", "lower0", "lower1"))):
        path.mkdir(parents=True, exist_ok=True)
    upper, lower0, lower1 = (directory / name for name in ("upper", "lower0", "lower1"))
    squash = f"squash_to_uid={os.getuid()},squash_to_gid={os.getgid()}," if os.getuid() else ""
    options = {
        "unionfs": ["-o", "cow", f"{upper}=RW:{lower0}=RO:{lower1}=RO"],
        "overlayfs": ["-o", f"{squash}lowerdir={lower0}:{lower1},upperdir={upper},workdir={work}"],
    }[kind]
    subprocess.run(
        [program, *options, str(mount_point)], check=True, capture_output=True, timeout=SECONDS
    )
    try:
        yield mount_point
    finally:
        unmount(mount_point)


@pytest.fixture(params=["unionfs", "overlayfs"])
def over_union(request: pytest.FixtureRequest, tmp_path: Path, serve: Serve) -> Iterator[View]:
    """The view of a union whose lower layers hold names with capitals (see `fill_layers`)."""
    fill_layers(tmp_path)
    with union(request.param, tmp_path) as merged, contextlib.ExitStack() as stack:
        mount_point = tmp_path / "view"
        mount_point.mkdir()
        yield stack.enter_context(serving(merged, mount_point, log=tmp_path / "view.log"))


def fill_layers(directory: Path) -> None:
    (directory / "lower1" / "Program Files").mkdir(parents=True)
    (directory / "lower1" / "Program Files" / "ReadMe.TXT").write_text("bottom")
    (directory / "lower1" / "Program Files" / "Old.DLL").write_text("old")
    (directory / "lower0" / "Textures").mkdir(parents=True)
    (directory / "lower0" / "Textures" / "Sky.DDS").write_text("sky")
    (directory / "lower0" / "Big.bin").write_bytes(os.urandom(3 << 20))
