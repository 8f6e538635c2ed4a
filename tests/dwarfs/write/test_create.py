"""Real trees, packed and mounted, are what they were."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fimd.dwarfs.write import PackError, Progress, create

Row = tuple[str, ...]
Rows = Callable[[Path], list[Row]]
Mount = Callable[[Path], AbstractContextManager[Path]]
NLINK = 7


def without_nlink(rows: list[Row]) -> list[Row]:
    """A file may have more names outside of the tree."""
    return [(*row[:NLINK], *row[NLINK + 1 :]) for row in rows]


def assert_same(source: Path, image: Path, mount: Mount, tree_rows: Rows) -> None:
    with mount(image) as shown:
        assert without_nlink(tree_rows(shown)) == without_nlink(tree_rows(source))


def python_library() -> Path:
    return Path(os.__file__).parent


@pytest.mark.usefixtures("no_mounts_left")
@pytest.mark.parametrize("level", [1, 3])
def test_a_part_of_python_is_mounted_as_it_was(
    level: int, tmp_path: Path, mount: Mount, tree_rows: Rows
) -> None:
    source = python_library() / "email"
    create(source, tmp_path / "image", level=level, subsecond=True)
    assert_same(source, tmp_path / "image", mount, tree_rows)


@pytest.mark.usefixtures("no_mounts_left")
def test_hard_links_sockets_and_odd_names_are_mounted_as_they_were(
    tmp_path: Path, mount: Mount, tree_rows: Rows
) -> None:
    source = tmp_path / "source"
    shutil.copytree(python_library() / "json", source / "d")
    for number in range(300):
        os.link(source / "d" / "decoder.py", source / f"again {number}")
        (source / f"copy {number}").write_bytes(b"copy" * (number % 7))
        os.symlink(f"copy {number}", os.fsencode(source) + b"/\xff%d" % number)
    os.mkfifo(source / "fifo")
    (source / "empty").mkdir()
    create(source, tmp_path / "image", subsecond=True)
    with mount(tmp_path / "image") as shown:
        assert tree_rows(shown) == tree_rows(source)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("no_mounts_left")
@pytest.mark.parametrize("level", [1, 3, 5])
@pytest.mark.parametrize(
    "source",
    [python_library(), Path("/usr/lib/python3"), Path("/usr/share/locale"), Path("/usr/share/doc")],
    ids=str,
)
def test_a_large_tree_is_mounted_as_it_was(
    level: int, source: Path, tmp_path: Path, mount: Mount, tree_rows: Rows
) -> None:
    if not source.is_dir():
        pytest.skip(f"there is no {source}")
    create(source, tmp_path / "image", level=level, subsecond=True)
    assert_same(source, tmp_path / "image", mount, tree_rows)


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("/dev/null")
    summary = create(python_library() / "json", tmp_path / "nowhere", level=1)
    assert summary.bytes_out > 1000
    assert (tmp_path / "nowhere").is_symlink()


def test_an_image_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_text("old")
    seen: list[list[str]] = []

    def progress(_: Progress) -> None:
        assert image.read_text() == "old"
        seen.append(sorted(path.name for path in tmp_path.iterdir()))

    create(python_library() / "json", image, level=1, progress=progress)
    assert all(names[-1] == "image" and names[0].startswith(".image.") for names in seen)
    assert image.read_bytes().startswith(b"DWARFS\2\5")
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


@pytest.mark.parametrize("output", [".", "missing/image"])
def test_an_output_that_cannot_be_written_is_an_error(output: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot write here"):
        create(python_library() / "json", tmp_path / output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", [-1, 10])
def test_there_are_no_levels_but_0_to_9(level: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is none of 0 to 9"):
        create(python_library() / "json", tmp_path / "image", level=level)


def test_importing_the_writer_brings_no_filesystem_server() -> None:
    code = "import sys, fimd.dwarfs.write; sys.exit('pyfuse3' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
