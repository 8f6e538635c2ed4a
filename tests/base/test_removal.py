"""Removing trees: whatever they hold goes, and nothing that they do not hold."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fimd.base.removal import empty_directory, remove_tree
from fimd.base.system_calls import RENAME_EXCHANGE
from tests.support.children import beside, in_child
from tests.support.files import make_deep, rename_with


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def make_everything(top: Path) -> None:
    """One of each kind of entry, with names that are no text."""
    top.mkdir()
    (top / "empty").mkdir()
    (top / "full" / "fuller").mkdir(parents=True)
    (top / "full" / "fuller" / "file").write_text("content")
    os.mkdir(os.fsencode(top) + b"/\xff\n")
    os.mkfifo(top / "full" / "fifo")
    os.link(top / "full" / "fuller" / "file", top / "link")


def test_a_tree_goes_with_all_that_is_in_it(tmp_path: Path, held: int) -> None:
    make_everything(tmp_path / "tree")
    remove_tree(held, "tree")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_no_error_and_a_file_goes_too(tmp_path: Path, held: int) -> None:
    remove_tree(held, "tree")
    (tmp_path / "file").write_text("content")
    remove_tree(held, b"file")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_can_be_emptied_and_stays(tmp_path: Path, held: int) -> None:
    make_everything(tmp_path / "tree")
    empty_directory(held)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("levels", [1_500, 20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_the_depth_of_a_tree_takes_neither_descriptors_nor_the_interpreters_stack(
    levels: int,
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:  # a disk takes long
        held = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
        os.mkdir("tree", dir_fd=held)
        make_deep(Path(scratch, "tree"), levels)

        def remove() -> None:
            os.closerange(held + 1, 1 << 16)  # what else the tests have open
            resource.setrlimit(resource.RLIMIT_NOFILE, (held + 8, held + 8))
            remove_tree(held, "tree")

        status = in_child(remove)
        remaining = os.listdir(scratch)
        remove_tree(held, "tree")
        os.close(held)
    assert (status, remaining) == (0, [])


def test_names_of_the_longest_length_in_each_other_are_removed(tmp_path: Path, held: int) -> None:
    (tmp_path / "tree").mkdir()
    make_deep(tmp_path / "tree", 100, "n" * 255)
    remove_tree(held, "tree")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_removed_and_what_it_leads_to_is_not(tmp_path: Path, held: int) -> None:
    make_everything(tmp_path / "outside")
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree" / "below" / "link").symlink_to("../../outside")
    remove_tree(held, "tree")
    (tmp_path / "other").symlink_to("outside")
    remove_tree(held, "other")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert len(list((tmp_path / "outside").iterdir())) == 4


@pytest.mark.parametrize("mode", [0, 0o311, 0o500, 0o444])
def test_an_owner_s_directories_go_whatever_modes_they_have(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in (*tmp_path.parents,)[:3]:
        if parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o111)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    def make_and_remove() -> None:
        os.fchdir(top)
        make_everything(Path("tree"))
        for path in ("tree/full/fuller", "tree/full", "tree"):
            os.chmod(path, mode)
        remove_tree(top, "tree")

    assert in_child(make_and_remove, as_plain=True) == 0
    os.close(top)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="two users are needed")
def test_what_is_another_user_s_stays_and_is_told(tmp_path: Path, held: int) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "tree" / "own" / "theirs").mkdir(parents=True)
    (tmp_path / "tree" / "own" / "theirs" / "file").write_text("kept")
    (tmp_path / "tree" / "own" / "file").write_text("removed")

    def give_away() -> None:
        with pytest.raises(PermissionError):
            remove_tree(held, "tree")

    for path in ("tree", "tree/own", "tree/own/file"):
        os.chown(tmp_path / path, 5, 60)
    assert in_child(give_away, as_plain=True) == 0
    assert (tmp_path / "tree" / "own" / "theirs" / "file").read_text() == "kept"
    assert not (tmp_path / "tree" / "own" / "file").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="mounting is root's")
@pytest.mark.parametrize("place", ["tree", "tree/one", "tree/one/two"])
@pytest.mark.parametrize("kind", ["another file system", "a part of the same one"])
def test_what_is_mounted_in_a_tree_stays(kind: str, place: str, tmp_path: Path, held: int) -> None:
    (tmp_path / "tree" / "one" / "two").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    point = tmp_path / place
    other = ["-t", "tmpfs", "none"] if kind == "another file system" else ["--bind", "elsewhere"]
    subprocess.run(["mount", *other, point], cwd=tmp_path, check=True)
    try:
        (point / "kept").write_text("kept")
        with pytest.raises(OSError, match=r"busy|cross-device|not empty"):
            remove_tree(held, "tree")
        [kept] = tmp_path.glob("tree/**/kept")
        assert kept.read_text() == "kept"
    finally:
        [moved] = [path.parent for path in tmp_path.glob("tree/**/kept")]
        subprocess.run(["umount", moved], check=True)


def test_directories_that_are_exchanged_for_links_meanwhile_lead_nowhere(
    tmp_path: Path, held: int
) -> None:
    canary = tmp_path / "canary"
    make_everything(canary)
    before = sorted(path.name for path in canary.rglob("*"))
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / name).symlink_to(canary)
    links = os.open(tmp_path / "links", os.O_RDONLY | os.O_DIRECTORY)

    def exchange() -> None:
        for name in ("a", "b"):
            try:
                rename_with(RENAME_EXCHANGE, tmp_path / "tree" / name, tmp_path / "links" / name)
            except OSError:
                continue

    with beside(exchange):
        for _ in range(200):
            for name in ("a", "b"):  # where the other does not see it
                (tmp_path / "fresh" / name / "sub" / "sub").mkdir(parents=True)
                (tmp_path / "fresh" / name / "sub" / "sub" / "file").touch()
            (tmp_path / "fresh").rename(tmp_path / "tree")
            remove_tree(held, "tree")
            for name in ("a", "b"):
                remove_tree(links, name)
                (tmp_path / "links" / name).symlink_to(canary)
    assert sorted(path.name for path in canary.rglob("*")) == before
    os.close(links)
