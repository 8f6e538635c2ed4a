"""The case-insensitive view beside a plain pyfuse3 pass-through of the same directory.

Every round mounts both anew, one after the other.
"""

# ruff: noqa: ARG002 -- the handlers' parameters are those of pyfuse3.Operations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyfuse3

from fimd.casefold.naming import NAMINGS
from fimd.casefold.view import serve
from fimd.dwarfs.fuse import guarded, run
from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds, exponent, seconds

FOLDERS, FILES = 50, 100
LARGE = 256 << 20
SIZES = (1250, 2500, 5000, 10_000, 20_000)
_ROUNDS = 5
_MOST = 1 / 0.7
"""Of the pass-through's time for a lookup."""
_LINEAR = 1.15
_REACHING = ("lookups, first time", "lookups, again")
_THEIRS = "pyfuse3 pass-through"


class PassThrough(pyfuse3.Operations):
    """As little as shows a directory for reading, with pyfuse3's own timeouts of 300 s."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.paths = {int(pyfuse3.ROOT_INODE): os.fsencode(source)}

    def attributes(self, path: bytes) -> pyfuse3.EntryAttributes:
        status = os.lstat(path)
        entry = pyfuse3.EntryAttributes()
        for name in (
            *("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size"),
            *("st_blksize", "st_blocks", "st_atime_ns", "st_mtime_ns", "st_ctime_ns"),
        ):
            setattr(entry, name, getattr(status, name))
        return entry

    @guarded
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        path = self.paths[parent_inode] + b"/" + name
        entry = self.attributes(path)
        self.paths[entry.st_ino] = path
        return entry

    @guarded
    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        entry = self.attributes(self.paths[inode])
        entry.st_ino = inode
        return entry

    @guarded
    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        pass

    @guarded
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(os.open(self.paths[inode], os.O_RDONLY)))

    @guarded
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    @guarded
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        os.close(fh)

    @guarded
    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    @guarded
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        if start_id == 0:
            self.names = sorted(os.listdir(self.paths[fh]))
        for position in range(start_id, len(self.names)):
            name = self.names[position]
            path = self.paths[fh] + b"/" + name
            entry = self.attributes(path)
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, position + 1):
                break
            self.paths[entry.st_ino] = path


@contextlib.contextmanager
def mounted(kind: str, source: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as mount_point:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.casefold", kind, source, mount_point],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield Path(mount_point)
        finally:
            subprocess.run(["fusermount3", "-u", mount_point], check=True, timeout=60)
            process.kill()  # whether it leaves by itself is for the tests to see
            process.wait(60)


def stat_all(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)


def read_all(paths: list[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 4096)
        os.close(descriptor)


def read_through(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def _measure(
    measured: dict[str, Rounds], kind: str, source: Path, generator: random.Random
) -> None:
    """Note one round of the view, or of the pass-through."""
    relative = [
        f"tree/dir{folder:02}/file{file:03}" for folder in range(FOLDERS) for file in range(FILES)
    ]
    generator.shuffle(relative)
    name = "view" if kind == "view" else _THEIRS

    def note(what: str, action: Callable[[], object]) -> None:
        measured.setdefault(what, Rounds()).note(name, seconds(action))

    with mounted(kind, source) as root:
        paths = [f"{root}/{path}" for path in relative]
        note("lookups, first time", partial(stat_all, paths))
        note("lookups, again", partial(stat_all, paths))
        note("lookups of what is not there", partial(stat_all, [path + "x" for path in paths]))
        note("small files read, first time", partial(read_all, paths))
        note(f"{LARGE >> 20} MiB read in sequence", partial(read_through, root / "large"))
    with mounted(kind, source) as root:
        paths = [f"{root}/{path}" for path in relative]
        if kind == "view":  # what this is for; the pass-through has to be asked by the right names
            paths = [
                f"{root}/" + "".join(generator.choice((c, c.upper())) for c in path)
                for path in relative
            ]
        note("lookups by random spellings", partial(stat_all, paths))
    with mounted(kind, source) as root:
        note("10 000 entries listed, first time", partial(list, os.scandir(root / "wide10000")))


def create_all(paths: list[str]) -> None:
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def remove_all(paths: list[str]) -> None:
    for path in paths:
        os.unlink(path)


def _width(source: Path, size: int, generator: random.Random) -> dict[str, float]:
    """Return the seconds to create, list, find in any case and remove entries of a directory."""
    (source / f"new{size}").mkdir(exist_ok=True)
    with mounted("view", source) as root:
        folder = f"{root}/NEW{size}"
        paths = [f"{folder}/Entry{number}.Dat" for number in range(size)]
        taken = {"create": seconds(partial(create_all, paths))}
        taken["list"] = seconds(partial(os.listdir, folder))
        generator.shuffle(paths)
        others = [f"{folder}/{os.path.basename(path).swapcase()}" for path in paths]
        taken["find in another case"] = seconds(partial(stat_all, others))
        taken["remove"] = seconds(partial(remove_all, paths))
    return taken


def _make(source: Path) -> None:
    for folder in range(FOLDERS):
        path = source / "tree" / f"dir{folder:02}"
        path.mkdir(parents=True)
        for file in range(FILES):
            (path / f"file{file:03}").write_bytes(bytes(4096))
    (source / "wide10000").mkdir()
    for number in range(10_000):
        (source / "wide10000" / f"entry{number}").touch()
    with (source / "large").open("wb") as large:
        for _ in range(LARGE >> 20):
            large.write(os.urandom(1 << 20))


def measure() -> Iterator[Row]:
    """Measure both in turn, and how the view grows with a directory."""
    generator = random.Random(6)
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        source = Path(name)
        _make(source)
        measured: dict[str, Rounds] = {}
        for turn in range(_ROUNDS):
            for kind in ("view", "plain")[:: -1 if turn % 2 else 1]:
                _measure(measured, kind, source, generator)
        for what, rounds in measured.items():
            most = _MOST if what in _REACHING else None
            yield compared(what, rounds, "view", _THEIRS, most=most)
        widths: dict[str, Rounds] = {}
        for _ in range(_ROUNDS):
            for size in SIZES:
                for what, value in _width(source, size, generator).items():
                    widths.setdefault(what, Rounds()).note(str(size), value)
        for what, rounds in widths.items():
            power = exponent([(size, rounds.median(str(size))) for size in SIZES])
            each = ", ".join(f"{n}: {rounds.median(str(n)) / n * 1e6:.1f}" for n in SIZES)
            text = f"{each} µs an entry; exponent {power:.2f}"
            yield Row(f"{what}, by entries", text, reach="linear", reached=power <= _LINEAR)


def serve_one(kind: str, source: str, mount_point: str) -> None:
    def ready() -> None:
        print("ready", flush=True)

    if kind == "view":
        asyncio.run(
            serve(source, mount_point, naming=NAMINGS["on"], fsname="bench", on_ready=ready)
        )
    else:
        asyncio.run(run(PassThrough(source), mount_point, {"default_permissions"}, ready))


if __name__ == "__main__":
    serve_one(*sys.argv[1:])
