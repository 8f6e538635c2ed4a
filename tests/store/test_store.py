"""The store: whole or not there, bounded, and nothing of it removed while somebody uses it."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fimd.base.errors import AccessDeniedError, FimError, UnsupportedError
from fimd.store import store
from fimd.store.store import Store

MIB = 1 << 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the store is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(store.place())


def add(opened: Store, name: str, mib: int, text: str = "content") -> None:
    def fill(path: str) -> None:
        os.mkdir(path)
        Path(path, "file").write_text(text)

    with opened.changing():
        opened.add(name, mib * MIB, fill)
    os.utime(Path(opened.path, name, "size"), (len(os.listdir(opened.path)),) * 2)


@contextmanager
def used(opened: Store, name: str) -> Iterator[int]:
    tree, in_use = opened.use(name)
    try:
        yield tree
    finally:
        os.close(tree)
        os.close(in_use)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.is_dir())


def test_what_was_added_is_there_and_nobody_elses(place: Path) -> None:
    with Store(str(place), most=MIB) as opened:
        add(opened, "sha256-a", 1)
        assert "sha256-a" in opened
        with used(opened, "sha256-a") as tree:
            assert os.listdir(f"/proc/self/fd/{tree}") == ["file"]
    for path in (place.parent, place, place / "sha256-a"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_least_used_make_room(place: Path) -> None:
    with Store(str(place), most=3 * MIB) as opened:
        for name in "abc":
            add(opened, name, 1)
        before = time.time()
        with used(opened, "a"):
            pass
        assert (place / "a" / "size").stat().st_mtime > before - 1
        add(opened, "d", 1)
        assert names(place) == ["a", "c", "d"]


def test_what_is_used_stays_and_then_there_is_no_room(place: Path) -> None:
    with Store(str(place), most=2 * MIB) as opened:
        add(opened, "a", 1)
        add(opened, "b", 1)
        with used(opened, "a"), used(opened, "b"):
            with pytest.raises(UnsupportedError, match="3 MiB are in use or needed: raise"):
                add(opened, "c", 1)
            assert opened.prune() == 0
        assert names(place) == ["a", "b"]
        assert opened.prune() == 2
    assert names(place) == []


def test_more_than_the_disk_has_is_refused_before_anything_is_written(place: Path) -> None:
    with (
        Store(str(place), most=1 << 60) as opened,
        pytest.raises(UnsupportedError, match="the disk has"),
    ):
        add(opened, "a", 1 << 38)
    assert names(place) == []


def test_what_fails_leaves_nothing(place: Path) -> None:
    def fill(path: str) -> None:
        os.mkdir(path)
        raise FimError("damaged")

    with Store(str(place), most=MIB) as opened:
        with pytest.raises(FimError, match="damaged"), opened.changing():
            opened.add("a", 1, fill)
        assert os.listdir(place) == ["lock"]


def test_what_a_killed_maker_left_is_removed_by_the_next(place: Path) -> None:
    with Store(str(place), most=MIB) as opened:
        (place / ".0123" / "tree" / "deep").mkdir(parents=True)
        (place / ".0123" / "tree" / "deep").chmod(0)
        add(opened, "a", 1)
    assert names(place) == ["a"]


def test_one_that_has_gone_says_so(place: Path) -> None:
    with (
        Store(str(place), most=MIB) as opened,
        pytest.raises(FimError, match="has just gone: try again"),
    ):
        opened.use("a")


def test_what_makes_no_sense_is_pruned(place: Path) -> None:
    with Store(str(place), most=2 * MIB) as opened:
        (place / "stray").mkdir()
        (place / "b").mkdir()
        (place / "b" / "size").write_text("lots")
        add(opened, "a", 1)
        assert opened.prune() == 3
    assert names(place) == []


def test_a_link_in_its_place_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AccessDeniedError, match="set XDG_CACHE_HOME"):
        Store(str(place))


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")
def test_another_users_is_not_used(place: Path) -> None:
    place.mkdir(parents=True)
    os.chown(place, 1, 1)
    with pytest.raises(AccessDeniedError, match="belongs to another user"):
        Store(str(place))


def test_it_does_not_lie_behind_a_link_of_the_users(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "cache"
    link.symlink_to(tmp_path / "real")
    if os.getuid() == 0:  # whose programs could change anything
        assert store.check_place() == str(place)
        os.chown(link, 1, 1, follow_symlinks=False)
        monkeypatch.setattr(os, "getuid", lambda: 1)
    with pytest.raises(AccessDeniedError, match="might exchange: set XDG_CACHE_HOME"):
        store.check_place()
