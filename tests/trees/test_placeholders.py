"""What is made for mounts to lie on is told from what an application has made."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fimd.dwarfs.write import SourceTree
from fimd.trees.canonical import canonical
from fimd.trees.merged import Merged, is_whiteout, open_layers
from fimd.trees.placeholders import make
from fimd.trees.upper import read_upper
from tests.support.layers import MakeLayer


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    (path / "etc").mkdir(parents=True)
    (path / "etc" / "own").touch()
    os.utime(path / "etc", ns=(5, 7_000_000_000))
    return path


@pytest.fixture
def opened(upper: Path) -> Iterator[int]:
    descriptor = os.open(upper, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def entries(upper: Path) -> set[bytes]:
    with SourceTree(upper) as tree:
        return {entry.path for entry in read_upper(tree, tree.scan()).entries}


def test_they_are_made_with_what_is_missing_above_and_are_no_change(
    upper: Path, opened: int
) -> None:
    make("etc/hosts", opened, is_directory=False)
    make("opt/deep/name", opened, is_directory=False)
    make("opt/deep/mnt", opened, is_directory=True)
    make("opt/deep/mnt", opened, is_directory=True)
    assert (upper / "etc" / "hosts").read_bytes() == (upper / "opt/deep/name").read_bytes() == b""
    assert (upper / "opt" / "deep" / "mnt").is_dir()
    assert (upper / "etc").stat().st_mtime == 7
    assert entries(upper) == {b"", b"etc", b"etc/own"}


def test_one_that_is_used_is_a_change(upper: Path, opened: int) -> None:
    for name in ("written", "touched", "open", "linked", "still"):
        make(f"opt/{name}", opened, is_directory=False)
    for name in ("filled", "empty"):
        make(f"srv/{name}/sub", opened, is_directory=True)
    (upper / "opt" / "written").write_text("x")
    os.utime(upper / "opt" / "touched")
    (upper / "opt" / "open").chmod(0o666)
    os.link(upper / "opt" / "linked", upper / "opt" / "link")
    (upper / "srv/filled/sub/file").touch()
    make("srv/filled/sub/mnt", opened, is_directory=True)
    assert entries(upper) - {b"", b"etc", b"etc/own"} == {
        *(b"opt", b"opt/written", b"opt/touched", b"opt/open", b"opt/linked", b"opt/link"),
        *(b"srv", b"srv/filled", b"srv/filled/sub", b"srv/filled/sub/file"),
    }


def test_one_where_something_was_deleted_stays_a_deletion(
    upper: Path, opened: int, make_layer: MakeLayer
) -> None:
    def lower(path: Path) -> None:
        (path / "etc").mkdir()
        (path / "etc" / "hosts").write_text("localhost")

    place = make_layer(lower)
    make("etc/hosts", opened, is_directory=False)
    make("etc/other", opened, is_directory=False)
    with SourceTree(upper) as tree, open_layers([place]) as images:
        found = canonical(read_upper(tree, tree.scan()), Merged(images))
    assert {e.path: is_whiteout(e.mode, e.rdev) for e in found} == {
        b"": False,
        b"etc": False,
        b"etc/own": False,
        b"etc/hosts": True,
    }
