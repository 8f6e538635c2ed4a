"""A real view over real sources, and the promise that nothing of it is left afterwards."""

import contextlib
import functools
import itertools
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 60.0

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
        subprocess.run(["umount", str(path)], capture_output=True, timeout=SECONDS, check=False)
        if time.monotonic() > deadline:  # end the test, not the machine
            subprocess.run(["umount", "--lazy", str(path)], timeout=SECONDS, check=False)
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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], View]]:
    """Views by kind that a module's tests share, each in a directory of its own."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:

        @functools.cache
        def mount(kind: str) -> View:
            base = tmp_path_factory.mktemp(kind)
            for name in ("source", "view"):
                (base / name).mkdir()
            source = base / "source"
            if kind in {"unionfs", "overlayfs"}:
                source = stack.enter_context(union(kind, base))
            words = ["allow_other"] if os.getuid() == 0 else []
            if kind == "preserve":
                words.append(kind)
            return stack.enter_context(serving(source, base / "view", *words, log=base / "log"))

        def fresh(kind: str) -> View:
            view, name = mount(kind), f"case{next(numbers)}"
            (view.root / name).mkdir()
            return View(view.root / name, view.source / name, view.log)

        yield fresh


@pytest.fixture(params=["directory", "unionfs", "overlayfs"])
def view(request: pytest.FixtureRequest, shared: Callable[[str], View]) -> View:
    """A view over a directory and over unions; `plain` is for what unions have not, or late."""
    return shared(request.param)


@pytest.fixture
def plain(shared: Callable[[str], View]) -> View:
    """A view over a directory."""
    return shared("directory")


@pytest.fixture
def preserving(shared: Callable[[str], View]) -> View:
    """A view over a directory that preserves case."""
    return shared("preserve")


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


@pytest.fixture
def open_up() -> Iterator[Callable[[Path], None]]:
    """Lets other users pass through the directories above a path until the test ends."""
    modes: dict[Path, int] = {}

    def let_pass(path: Path) -> None:
        for above in path.parents:
            mode = above.stat().st_mode
            if not mode & 0o001:
                modes[above] = stat.S_IMODE(mode)
                above.chmod(modes[above] | 0o001)

    yield let_pass
    for path, mode in modes.items():
        path.chmod(mode)
