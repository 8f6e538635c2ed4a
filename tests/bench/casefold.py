"""The case-insensitive view against a plain pyfuse3 pass-through of the same directory.

Run from the project's root: python tests/bench/casefold_view.py [ROUNDS]. Every round mounts both
anew, one after the other, so that ratios are of one machine at one time; the median is shown.
Wanted: path lookups at 0.7 of the pass-through's rate, directories of 10 000 entries at the cost
per entry of small ones, and 300 MB/s for what is read for the first time.
"""

# ruff: noqa: ARG002 -- the handlers' parameters are those of pyfuse3.Operations

import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyfuse3

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from fimd.casefold.view import serve  # noqa: E402 -- found by the line above
from fimd.dwarfs.fuse import guarded, run  # noqa: E402

FOLDERS, FILES = 50, 100
LARGE = 256 << 20
SIZES = (1250, 2500, 5000, 10_000, 20_000)


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
            [sys.executable, __file__, "--serve", kind, source, mount_point],
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


def rate(count: int, action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return count / (time.perf_counter() - started)


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


def measure(kind: str, source: Path, generator: random.Random) -> dict[str, float]:
    """Rates per second, of files unless it says MB."""
    relative = [
        f"tree/dir{folder:02}/file{file:03}" for folder in range(FOLDERS) for file in range(FILES)
    ]
    generator.shuffle(relative)
    result = {}
    with mounted(kind, source) as root:
        paths = [f"{root}/{path}" for path in relative]
        result["lookups, first time"] = rate(len(paths), lambda: stat_all(paths))
        result["lookups, again"] = rate(len(paths), lambda: stat_all(paths))
        absent = [path + "x" for path in paths]
        result["lookups of what is not there"] = rate(len(paths), lambda: stat_all(absent))
        result["small files read, first time"] = rate(len(paths), lambda: read_all(paths))
        large = source / "large"
        result["MB read in sequence, first time"] = rate(
            LARGE // 10**6, lambda: read_through(root / large.name)
        )
    with mounted(kind, source) as root:
        paths = [f"{root}/{path}" for path in relative]
        if kind == "view":  # what this is for; the pass-through has to be asked by the right names
            paths = [
                f"{root}/" + "".join(generator.choice((c, c.upper())) for c in path)
                for path in relative
            ]
        result["lookups by random spellings"] = rate(len(paths), lambda: stat_all(paths))
    with mounted(kind, source) as root:
        result["entries listed, first time"] = rate(
            10_000, lambda: list(os.scandir(root / "wide10000"))
        )
    return result


def create_all(paths: list[str]) -> None:
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def remove_all(paths: list[str]) -> None:
    for path in paths:
        os.unlink(path)


def width(source: Path, size: int, generator: random.Random) -> list[float]:
    """Microseconds an entry to create, list, find in any case and remove `size` of them."""
    (source / f"new{size}").mkdir()
    with mounted("view", source) as root:
        folder = f"{root}/NEW{size}"
        paths = [f"{folder}/Entry{number}.Dat" for number in range(size)]
        rates = [rate(size, lambda: create_all(paths)), rate(size, lambda: os.listdir(folder))]
        generator.shuffle(paths)
        others = [f"{folder}/{os.path.basename(path).swapcase()}" for path in paths]
        rates += [rate(size, lambda: stat_all(others)), rate(size, lambda: remove_all(paths))]
    return [1e6 / value for value in rates]


def main(rounds: int) -> None:
    generator = random.Random(6)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory)
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
        taken: dict[str, list[dict[str, float]]] = {"plain": [], "view": []}
        for turn in range(rounds):
            for kind in sorted(taken, reverse=bool(turn % 2)):
                taken[kind].append(measure(kind, source, generator))
        print(
            f"{'per second, median of ' + str(rounds):34} {'plain':>10} {'view':>10} {'ratio':>6}"
        )
        for name in taken["view"][0]:
            plain = statistics.median(result[name] for result in taken["plain"])
            view = statistics.median(result[name] for result in taken["view"])
            ratio = statistics.median(
                v[name] / p[name] for p, v in zip(taken["plain"], taken["view"], strict=True)
            )
            print(f"{name:34} {plain:10.0f} {view:10.0f} {ratio:6.2f}")
        print("\nmicroseconds an entry:    created     listed      found    removed")
        for size in SIZES:
            times = width(source, size, generator)
            print(f"{size:>7} entries         " + "".join(f"{value:11.1f}" for value in times))


def serve_one(kind: str, source: str, mount_point: str) -> None:
    def ready() -> None:
        print("ready", flush=True)

    if kind == "view":
        asyncio.run(serve(source, mount_point, fsname="bench", on_ready=ready))
    else:
        asyncio.run(run(PassThrough(source), mount_point, {"default_permissions"}, ready))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_one(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
