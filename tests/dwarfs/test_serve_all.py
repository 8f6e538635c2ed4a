"""Several images in one mount: each is what it is in a mount of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Rows = Callable[[Path], list[tuple[str, ...]]]
pytestmark = pytest.mark.usefixtures("no_mounts_left")

ROOT = Path(__file__).parents[2]
SERVE = """
import asyncio, sys
from contextlib import ExitStack
from fimd.dwarfs import Image
from fimd.dwarfs.serve import serve_all
from fimd.dwarfs.served import Shown

point, offset, *paths = sys.argv[1:]
with ExitStack() as opened:
    images = {
        str(number).encode(): Shown(
            opened.enter_context(Image.open(path)),
            uid=None, gid=None, cache_bytes=8 << 20, inode_offset=int(offset),
        )
        for number, path in enumerate(paths)
    }
    asyncio.run(serve_all(
        images, point, fsname="several", on_ready=lambda: print("ready", flush=True)
    ))
"""


@pytest.fixture
def mount(open_directory: Path) -> Callable[..., contextlib.AbstractContextManager[Path]]:
    """Mount images as 0, 1 …, the numbers of their inodes all from `offset` on."""

    @contextlib.contextmanager
    def mounted(*images: Path, offset: int = 2) -> Iterator[Path]:
        point = Path(tempfile.mkdtemp(dir=open_directory))
        words = [sys.executable, "-c", SERVE, str(point), str(offset), *map(str, images)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            try:
                yield point
            finally:
                subprocess.run(["umount", point], check=True, timeout=60)
        assert process.returncode == 0
        point.rmdir()

    return mounted


Mount = Callable[..., contextlib.AbstractContextManager[Path]]


@pytest.fixture
def several(images: Path) -> list[Path]:
    """Images whose files and directories are of every kind, one of them twice."""
    names = ["mix-default", "tiny", "mix-S12-W8", "mix-default"]
    return [images / "made" / f"{name}.dwarfs" for name in names]


@pytest.mark.parametrize("offset", [2, 1 << 31])
def test_each_tree_is_its_manifest(
    several: list[Path], mount: Mount, tree_rows: Rows, offset: int
) -> None:
    with mount(*several, offset=offset) as root:
        for number, image in enumerate(several):
            manifest = image.with_suffix(".tsv").read_text().splitlines()
            rows = [tuple(line.split("\t")) for line in manifest if not line.startswith("#")]
            assert tree_rows(root / str(number)) == sorted(rows)


def test_no_two_images_have_an_inode_number_in_common(several: list[Path], mount: Mount) -> None:
    with mount(*several) as root:
        found: dict[int, set[str]] = {}
        for number in range(len(several)):
            for where, _, files in os.walk(root / str(number)):
                for path in [where, *(os.path.join(where, name) for name in files)]:
                    found.setdefault(os.lstat(path).st_ino, set()).add(str(number))
        assert {len(images) for images in found.values()} == {1}


def test_the_directory_above_them_lists_them_and_nothing_else(
    several: list[Path], mount: Mount
) -> None:
    with mount(*several) as root:
        assert sorted(os.listdir(root)) == ["0", "1", "2", "3"]
        assert root.stat().st_ino == 1
        assert not (root / "4").exists()
        with pytest.raises(OSError, match="Read-only file system"):
            (root / "4").mkdir()


def test_statfs_counts_all_of_them(several: list[Path], mount: Mount) -> None:
    def files(*images: Path) -> int:
        with mount(*images) as root:
            return os.statvfs(root / "0").f_files

    assert files(*several) == sum(map(files, several))


def test_a_damaged_image_harms_none_that_is_beside_it(
    images: Path, mount: Mount, tree_rows: Rows
) -> None:
    good = images / "made/tiny.dwarfs"
    with mount(good, images / "damaged/name-.dwarfs", good) as root:
        with pytest.raises(OSError, match="Input/output error"):
            [os.listdir(where) for where, _, _ in os.walk(root / "1", onerror=_raise)]
        assert tree_rows(root / "0") == tree_rows(root / "2")


def _raise(error: OSError) -> None:
    raise error
