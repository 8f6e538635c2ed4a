import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs import DwarfsError, Image
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.extract import extract

Rows = Callable[[Path], list[tuple[str, ...]]]
HUGE = 1 << 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set owners and make devices")
def test_the_extracted_tree_is_the_manifest_in_every_column(
    sample: Any, tmp_path: Path, tree_rows: Rows
) -> None:
    expected = [
        (*row[:-1], "huge") if row[1] == "f" and int(row[5]) > HUGE else row
        for row in sample.rows()
    ]
    # images from Windows give links a mode of their own, which Linux does not know
    expected = [(*row[:2], "0777", *row[3:]) if row[1] == "l" else row for row in expected]
    with Image.open(sample.file, sample.offset, sample.size) as image:
        extract(image, tmp_path / "out")
        if image.metadata.has_entry_table:
            # Up to 2.2 names of equal content share a number but not their times: they are files
            # of their own, which a count of 6 in the manifest is not.
            expected = [(*row[:7], "1", *row[8:]) for row in expected]
    assert tree_rows(tmp_path / "out") == sorted(expected)


def test_holes_are_holes_again(images: Path, tmp_path: Path) -> None:
    with Image.open(images / "made/sparse.dwarfs") as image:
        extract(image, tmp_path / "out", on_skip=lambda _path, _error: None)
        files = [(path, facts) for path, facts in image.walk() if facts.size > HUGE]
    assert files
    for path, facts in files:
        found = (tmp_path / "out" / os.fsdecode(path)).stat()
        assert found.st_size == facts.size
        assert found.st_blocks * 512 < facts.allocated + (1 << 20)


def test_a_name_that_exists_is_an_error_and_is_left_alone(images: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    with (
        Image.open(images / "made/tiny.dwarfs") as image,
        pytest.raises(FileExistsError) as caught,
    ):
        extract(image, tmp_path)
    assert caught.value.filename in (b"a.txt", "a.txt")
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_a_link_in_the_destination_is_not_followed(images: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "bin").symlink_to(elsewhere)
    skipped: list[bytes] = []
    with Image.open(images / "made/tiny.dwarfs") as image:
        extract(image, out, on_skip=lambda path, _error: skipped.append(path))
    assert set(skipped) == {b"bin", b"bin/hello"}
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["name-", "empty-name"])
def test_a_name_that_leaves_the_destination_is_refused(
    images: Path, tmp_path: Path, name: str
) -> None:
    with Image.open(images / f"damaged/{name}.dwarfs") as image, pytest.raises(DwarfsError):
        extract(image, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_block_with_a_wrong_byte_is_not_extracted(images: Path, tmp_path: Path) -> None:
    with (
        Image.open(images / "damaged/flip-block-xxh.dwarfs") as image,
        pytest.raises(DwarfsError, match="section BLOCK, offset 0"),
    ):
        extract(image, tmp_path / "out")


def test_cancelling_stops(images: Path, tmp_path: Path) -> None:
    with Image.open(images / "made/tiny.dwarfs") as image, pytest.raises(CancelledError):
        extract(image, tmp_path / "out", cancelled=lambda: True)


def test_progress_ends_with_all_bytes(images: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Image.open(images / "made/tiny.dwarfs") as image:
        extract(image, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (35, 35)
    assert seen == sorted(seen)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_plain_user_gets_all_but_devices(images: Path, open_directory: Path) -> None:
    out = open_directory / "extracted"
    out.mkdir()
    out.chmod(0o777)
    code = """
import os, sys
sys.path.insert(0, os.getcwd())
from fimd.dwarfs import Image
from fimd.dwarfs.extract import extract
image = Image.open(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
extract(image, sys.argv[2] + "/tree", on_skip=lambda path, error: print(os.fsdecode(path)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(images / "made/mix-default.dwarfs"), str(out)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (
        sorted(done.stdout.split())
        == ["dev_big", "dev_null", "dev_pts", "dev_sda1", "dev_zero"][: len(done.stdout.split())]
    )
    facts = (out / "tree" / "case" / "A").stat()
    assert facts.st_uid == 65534
    assert stat.S_IMODE(facts.st_mode) == 0o644


def test_some_paths_alone_are_written_with_the_owners_that_are_asked_for(
    images: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    top = os.open(tmp_path / "out", os.O_RDONLY)
    with Image.open(images / "made/sparse.dwarfs") as image:
        wanted = [path for path, facts in image.walk() if path and stat.S_ISREG(facts.mode)][:2]
        own = (os.geteuid(), os.getegid())
        assert all(b"/" not in path for path in wanted)
        extract(image, top, owners=lambda _facts: own, wanted=wanted.__contains__)
    os.close(top)
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(wanted)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "out").iterdir()} == {
        own
    }
