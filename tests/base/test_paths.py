"""The runtime tree is the user's own, whoever else is on the machine."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from fimd.base import paths, places
from fimd.base.errors import AccessDeniedError, BusyError
from fimd.base.paths import RuntimeTree
from fimd.base.places import data_directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_shared_part_is_sticky_and_the_rest_the_users_own(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        tree = RuntimeTree.open(str(tmp_path / "fim"))
    finally:
        os.umask(old)
    assert mode(tmp_path / "fim") == 0o1777
    assert mode(tmp_path / "fim" / "app") == 0o1777
    assert tree.root == tmp_path / "fim" / "app" / f"u{os.getuid()}"
    assert mode(tree.root) == 0o700
    assert {path.name for path in tree.root.iterdir()} == {
        *("bin", "sbin", "layers", "stacks", "instance", "state", "lost"),
    }
    assert tree.global_directory == tmp_path / "fim"


def test_opening_again_mends_modes_that_the_user_loosened(tmp_path: Path) -> None:
    tree = RuntimeTree.open(str(tmp_path / "fim"))
    tree.root.chmod(0o777)
    RuntimeTree.open(str(tmp_path / "fim"))
    assert mode(tree.root) == 0o700


@pytest.mark.parametrize("place", ["fim", "fim/app", "fim/app/uUID"])
def test_a_link_is_never_followed(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / place.replace("UID", str(os.getuid()))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(AccessDeniedError, match="FIM_DIR_GLOBAL"):
        RuntimeTree.open(str(tmp_path / "fim"))
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("place", ["fim", "fim/app", "fim/app/u0"])
@pytest.mark.parametrize("squatter_mode", [0o777, 0o1777, 0o755])
def test_what_another_user_made_first_is_refused(
    tmp_path: Path, place: str, squatter_mode: int
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make what belongs to another user")
    squatted = tmp_path / place
    squatted.mkdir(parents=True)
    os.chown(squatted, 12345, 12345)
    squatted.chmod(squatter_mode)
    with pytest.raises(AccessDeniedError, match=r"belongs to user 12345.*FIM_DIR_GLOBAL"):
        RuntimeTree.open(str(tmp_path / "fim"))


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fim").write_text("")
    with pytest.raises(AccessDeniedError, match="FIM_DIR_GLOBAL"):
        RuntimeTree.open(str(tmp_path / "fim"))


@pytest.mark.parametrize("name", ["bin", "lost", "state", "state/layers", "state/lock"])
@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_makes_no_sense_in_a_users_own_tree_is_set_aside(
    tmp_path: Path, name: str, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tree = RuntimeTree.open(str(tmp_path / "fim"))
    if name == "state/lock" and kind == "file":
        return
    place = tree.root / name
    if place.is_dir():
        shutil.rmtree(place)
    if kind == "link":
        place.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.write_text("")
    again = RuntimeTree.open(str(tmp_path / "fim"))
    os.close(again.lock())
    assert not place.is_symlink()
    assert place.is_file() if name == "state/lock" else place.is_dir()
    assert list(elsewhere.iterdir()) == []
    found = [path.name for path in tree.root.rglob("*") if "lost." in path.name]
    found += [path.name for path in again.lost.iterdir() if "lock" in path.name]
    assert found


def test_a_user_who_finds_the_shared_place_taken_has_the_tree_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "run").mkdir(mode=0o700)
    for module in (paths, places):
        monkeypatch.setattr(module, "DEFAULT_GLOBAL", str(tmp_path / "taken"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("FIM_DIR_GLOBAL", raising=False)
    tree = RuntimeTree.open()
    assert tree.root == tmp_path / "run" / "fim" / "app" / f"u{os.getuid()}"
    (tmp_path / "taken").unlink()  # what runs is known by the tree that it was started in
    assert RuntimeTree.open().root == tree.root
    monkeypatch.setenv("FIM_DIR_GLOBAL", str(tmp_path / "own"))
    assert RuntimeTree.open().root == tmp_path / "own" / "app" / f"u{os.getuid()}"


def test_only_one_daemon_has_the_tree(tmp_path: Path) -> None:
    tree = RuntimeTree.open(str(tmp_path / "fim"))
    descriptor = tree.lock()
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        tree.lock()
    os.close(descriptor)
    os.close(tree.lock())


def test_the_data_directory_is_hidden_beside_the_image(tmp_path: Path) -> None:
    assert data_directory(f"{tmp_path}/b c.flatimage") == f"{tmp_path}/.b c.flatimage.data"


def test_an_image_whose_name_leaves_no_room_for_that_has_it_at_home(tmp_path: Path) -> None:
    def place(length: int) -> bytes:
        name = os.fsdecode(b"\xff" * length)
        return os.path.basename(os.fsencode(data_directory(str(tmp_path / name))))

    assert place(249) == b"." + b"\xff" * 249 + b".data"
    assert place(250).startswith(b"\xff" * 200 + b".")
    assert len(place(250)) <= 255
    assert place(251) != place(250)
