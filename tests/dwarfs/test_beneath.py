"""What lies beneath a directory is reached whatever its path is like, and nothing else is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fimd.dwarfs.beneath import Beneath
from tests.support.files import make_deep


@pytest.fixture
def beneath(tmp_path: Path) -> Iterator[Beneath]:
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with Beneath(top) as opened:
        yield opened
    os.close(top)


def content(beneath: Beneath, path: bytes) -> bytes:
    with open(beneath.open(path, os.O_RDONLY), "rb") as file:
        return file.read()


def test_paths_are_opened_in_any_order(tmp_path: Path, beneath: Beneath) -> None:
    paths = ["a", "d/b", "d/e/c", "d/ef/c", "d/e/g/h", "d/b2"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    for first in paths:
        for second in paths:
            for path in (first, second):
                assert content(beneath, path.encode()) == path.encode()


def test_the_top_itself_is_the_empty_path(tmp_path: Path, beneath: Beneath) -> None:
    descriptor = beneath.open(b"", os.O_RDONLY | os.O_DIRECTORY)
    assert os.path.samestat(os.fstat(descriptor), tmp_path.stat())
    os.close(descriptor)


def test_a_path_may_be_longer_than_a_system_call_takes(tmp_path: Path, beneath: Beneath) -> None:
    make_deep(tmp_path, 100, "n" * 255)
    assert content(beneath, b"/".join([b"n" * 255] * 100 + [b"file"])) == b""


def test_directories_that_may_only_be_passed_are_passed(tmp_path: Path, beneath: Beneath) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_text("content")
    (tmp_path / "d").chmod(0o311)
    assert content(beneath, b"d/file") == b"content"
    (tmp_path / "d").chmod(0o755)


@pytest.mark.parametrize("path", [b"link", b"link/file", b"d/link/file"])
def test_no_link_is_followed(path: bytes, tmp_path: Path, beneath: Beneath) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "d" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        beneath.open(path, os.O_RDONLY)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.listdir("/proc/self/fd")
    with Beneath(top) as beneath:
        for path in (b"a/b/c", b"a/missing/c", b"a/b"):
            try:
                os.close(beneath.open(path, os.O_RDONLY))
            except FileNotFoundError:
                continue
    assert os.listdir("/proc/self/fd") == before
    os.close(top)
