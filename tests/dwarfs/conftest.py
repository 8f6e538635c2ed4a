"""What the DwarFS tests share: the sample images, their manifests, real mounts, hostile images."""

import contextlib
import hashlib
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT.parent / "shared" / "images"
WHOLE_FILE_LIMIT = 1 << 30  # bytes; larger files are compared where they have data

Row = tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """An image inside of a file, and the manifest of its tree."""

    file: Path
    manifest: Path
    offset: int | None = None  # where it is not told it must be found
    size: int | None = None

    @property
    def name(self) -> str:
        return f"{self.file.name}@{self.offset}" if self.offset else self.file.name

    def rows(self) -> list[Row]:
        """path, type, mode, uid, gid, size, mtime, nlink, rdev, target, SHA-256."""
        lines = self.manifest.read_text().splitlines()
        return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]


def samples() -> list[Sample]:
    found = [
        Sample(file, file.with_suffix(".tsv"))
        for folder in ("upstream/compat", "upstream/test", "upstream/bugs", "made")
        for file in sorted((IMAGES / folder).glob("*.dwarfs"))
        if file.with_suffix(".tsv").exists()
    ]
    embedded = IMAGES / "embedded" / "embed.tsv"
    if embedded.exists():
        for line in embedded.read_text().splitlines():
            if not line.startswith("#"):
                name, offset, size, manifest = line.split("\t")
                found.append(
                    Sample(embedded.parent / name, IMAGES / manifest, int(offset), int(size))
                )
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for `sample` every one of them."""
    if "sample" not in metafunc.fixturenames:
        return
    missing = pytest.param(None, marks=pytest.mark.skip("no sample images beside the project"))
    found = samples()
    values = [
        # making 50 000 files takes the file system longer than all other samples together
        pytest.param(sample, marks=pytest.mark.slow)
        if "many50k" in sample.name and "extracted" in metafunc.function.__name__
        else sample
        for sample in found
    ]
    metafunc.parametrize(
        "sample", values or [missing], ids=[sample.name for sample in found] or None
    )


@pytest.fixture(scope="session")
def images() -> Path:
    if not IMAGES.is_dir():
        pytest.skip("no sample images beside the project")
    return IMAGES


def escape(name: bytes) -> str:
    return "".join(chr(c) if 0x21 <= c <= 0x7E and c != 0x5C else f"\\{c:03o}" for c in name) or "-"


def row(
    path: bytes,
    facts: os.stat_result,
    target: Callable[[], bytes],
    digest: Callable[[], str],
) -> Row:
    """A line of a manifest, from what stat says."""
    kind = "f" if stat.S_ISREG(facts.st_mode) else stat.filemode(facts.st_mode)[0]
    return (
        escape(path) if path else ".",
        kind,
        f"{stat.S_IMODE(facts.st_mode):04o}",
        str(facts.st_uid),
        str(facts.st_gid),
        str(facts.st_size) if kind in "fl" else "-",
        f"{facts.st_mtime_ns // 10**9}.{facts.st_mtime_ns % 10**9:09}",
        str(facts.st_nlink) if kind != "d" else "1",
        str(facts.st_rdev) if kind in "bc" else "-",
        escape(target()) if kind == "l" else "-",
        digest() if kind == "f" else "-",
    )


@pytest.fixture(scope="session")
def tree_rows() -> Callable[[Path], list[Row]]:
    """The manifest of a real directory tree; of huge files the digest is "huge"."""

    def digest(path: bytes, size: int) -> str:
        if size > WHOLE_FILE_LIMIT:
            return "huge"
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def rows(root: Path) -> list[Row]:
        top = os.fsencode(root)
        found = [row(b"", os.lstat(top), bytes, str)]
        pending = [b""]
        while pending:
            directory = pending.pop()
            for entry in os.scandir(os.path.join(top, directory)):
                path = os.path.join(directory, entry.name)
                facts = entry.stat(follow_symlinks=False)

                def target(full: bytes = entry.path) -> bytes:
                    return os.readlink(full)

                def content(full: bytes = entry.path, size: int = facts.st_size) -> str:
                    return digest(full, size)

                found.append(row(path, facts, target, content))
                if stat.S_ISDIR(facts.st_mode):
                    pending.append(path)
        return sorted(found)

    return rows


Mount = Callable[..., AbstractContextManager[Path]]


class Mounter:
    """Mounts images by a process that has imported the server once and forks for each mount."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mounter.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,  # select sees what is not read yet, not what Python has read ahead
            cwd=ROOT,
        )

    @contextlib.contextmanager
    def __call__(
        self,
        image: Path,
        mount_point: Path,
        offset: int | None = 0,
        size: int | None = None,
        **more: int,
    ) -> Iterator[Path]:
        words = {
            "image": str(image),
            "mount_point": str(mount_point),
            "offset": offset,
            "size": size,
        }
        assert self._process.stdin
        self._process.stdin.write(repr(words | more).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._line()
        assert answer == "ready", answer
        try:
            yield mount_point
        finally:
            subprocess.run(["umount", mount_point], check=True, timeout=60)
            assert self._line() == "left 0"

    def _line(self) -> str:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], 20)
        assert ready, "the mount does not answer"
        return self._process.stdout.readline().decode().strip()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        assert self._process.wait(20) == 0
        self._process.stdout.close()
        self._errors.close()


@pytest.fixture(scope="session")
def mounter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounter]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no FUSE here")
    mounter = Mounter(tmp_path_factory.mktemp("mounter") / "stderr")
    yield mounter
    mounter.close()


@pytest.fixture
def mount(mounter: Mounter, tmp_path: Path) -> Mount:
    """Mount an image: `with mount(image, offset=…, size=…) as path`."""

    def mount_here(
        image: Path, offset: int | None = 0, size: int | None = None, **more: int
    ) -> AbstractContextManager[Path]:
        point = tmp_path / "mnt"
        point.mkdir(exist_ok=True)
        return mounter(image, point, offset, size, **more)

    return mount_here


@dataclass(frozen=True)
class Outcome:
    """What became of reading a hostile image in a process of its own."""

    text: str
    seconds: float  # of CPU
    peak: int  # bytes

    @property
    def refused(self) -> bool:
        return self.text.startswith("refused")


@pytest.fixture(scope="session")
def probe() -> Iterator[Callable[..., Outcome]]:
    """Open an image, read its whole tree and verify it, in a process with little memory.

    With a directory as its second argument, extract it there instead.
    """
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("prober.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin
        assert stdout

        def run(image: Path, destination: Path | None = None) -> Outcome:
            stdin.write(os.fsencode(f"{image}\t{destination or ''}\n"))
            stdin.flush()
            seconds, peak, text = stdout.readline().decode().rstrip("\n").split("\t", 2)
            return Outcome(text, float(seconds), int(peak))

        yield run
        stdin.close()
        assert process.wait(20) == 0


@pytest.fixture
def no_mounts_left(tmp_path: Path) -> Iterator[None]:
    """Fail where a test leaves a mount behind."""

    def mounts() -> int:
        return Path("/proc/self/mounts").read_text().count(str(tmp_path))

    yield
    deadline = time.monotonic() + 5
    while mounts() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mounts()
