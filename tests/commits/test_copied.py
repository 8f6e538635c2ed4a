"""A copy in place of an overlay: what an upper is afterwards, whatever happened on the way."""

import os
import shutil
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fimd.commits.copied import copy_up, fold, is_copied
from fimd.commits.lock import exclusive
from fimd.commits.recovery import recover
from fimd.dwarfs.write import create
from fimd.layers.place import LayerPlace, opened_files
from fimd.trees.merged import is_whiteout
from tests.commits.commits import opened
from tests.support.layers import killed_at, whiteout

BASE = ("dir/old", "dir/other", "keep/a", "keep/b", "gone/x", "gone/y", "hidden", "replaced/z")
CHANGING = tuple(
    (os, name)
    for name in (
        *("pwrite", "fsync", "replace", "mkdir", "unlink", "rmdir", "symlink", "link", "fchmod"),
        *("utime", "mknod", "truncate", "chmod", "fchown"),
    )
)

Tree = dict[str, tuple[int, object]]

pytestmark = [
    pytest.mark.namespaced,
    pytest.mark.skipif(os.geteuid() != 0, reason="it takes root, be it of a user namespace"),
]


@pytest.fixture
def layer(tmp_path: Path) -> LayerPlace:
    """A layer with some files, two of which are links of each other."""
    base = tmp_path / "tree"
    for name in BASE:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(name)
    os.link(base / "keep" / "a", base / "keep" / "link")
    (base / "symlink").symlink_to("keep")
    (base / "keep" / "b").chmod(0o4755)
    for path in (base, *base.rglob("*")):
        os.utime(path, (1, 1), follow_symlinks=False)
    create(base, tmp_path / "layer", level=1)
    return LayerPlace(str(tmp_path / "layer"), 0, (tmp_path / "layer").stat().st_size)


@pytest.fixture
def root(data: Path) -> Path:
    """The upper, in which something has been changed and deleted before."""
    upper = data / "root"
    (upper / "dir").mkdir()
    (upper / "dir" / "other").write_text("changed")
    (upper / "dir" / "mine").write_text("mine")
    whiteout(upper / "hidden")
    os.utime(upper / "dir", (2, 2))
    return upper


def copied(data: Path, layer: LayerPlace) -> None:
    with opened(data) as directory, opened_files([layer]) as layers, exclusive(directory):
        recover(directory)
        copy_up(directory, layers, 1)


def folded(data: Path) -> None:
    with opened(data) as directory:
        fold(directory)
        assert not is_copied(directory)


def recovered(data: Path) -> None:
    with opened(data) as directory, exclusive(directory):
        recover(directory)


def facts(top: Path) -> Tree:
    """What is in a tree: modes, times of files and of directories, and contents."""
    found: Tree = {}
    for path in top.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else status.st_rdev
        found[str(path.relative_to(top))] = (status.st_mode, content)
    return found


def change(root: Path) -> None:
    """What programs do in the copy."""
    (root / "dir" / "old").write_text("new")
    (root / "dir" / "other").unlink()
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "replaced")
    (root / "replaced").mkdir()
    (root / "replaced" / "new").write_text("new")
    (root / "keep" / "a").rename(root / "moved")
    (root / "new").mkdir()


AFTER = {
    "dir/old": "new",
    "dir/other": None,
    "dir/mine": "mine",
    "gone": None,
    "hidden": None,
    "keep/a": None,
    "keep/link": "keep/a",
    "moved": "keep/a",
    "replaced/new": "new",
    "replaced/z": None,
}
"""What the upper is to say then: contents, and None for what is deleted."""


def said(root: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        name = str(path.relative_to(root))
        if is_whiteout(status.st_mode, status.st_rdev):
            found[name] = None
        elif stat.S_ISREG(status.st_mode):
            found[name] = path.read_text()
    return found


def test_the_copy_is_the_whole_tree_and_what_was_not_changed_goes_again(
    data: Path, root: Path, layer: LayerPlace
) -> None:
    before = facts(root)
    copied(data, layer)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {*BASE, "keep/link", "dir/mine"} - {"hidden"}
    assert (root / "dir" / "other").read_text() == "changed"
    assert (root / "keep" / "a").stat().st_ino == (root / "keep" / "link").stat().st_ino
    assert (root / "keep" / "b").stat().st_mode & 0o7777 == 0o4755
    assert [(root / name).stat().st_mtime for name in ("keep", "gone", "dir")] == [1, 1, 2]
    folded(data)
    assert facts(root) == before
    assert (root / "dir").stat().st_mtime == 2


def test_what_was_changed_stays_and_what_is_gone_is_marked(
    data: Path, root: Path, layer: LayerPlace
) -> None:
    copied(data, layer)
    change(root)
    folded(data)
    assert said(root) == AFTER
    copied(data, layer)
    assert not (root / "gone").exists()
    assert sorted(os.listdir(root / "replaced")) == ["new"]
    folded(data)
    assert said(root) == AFTER


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.write_text("keep/b"),
        lambda path: os.setxattr(path, "user.mine", b"1"),
        lambda path: os.replace(shutil.copy2(path, path.with_name("twin")), path),
    ],
    ids=["mode", "times", "content", "attribute", "exchange"],
)
def test_no_change_is_too_small_to_be_kept(
    data: Path, root: Path, layer: LayerPlace, touch: Callable[[Path], object]
) -> None:
    copied(data, layer)
    time.sleep(0.02)  # a kernel's clock ticks every few milliseconds
    touch(root / "keep" / "b")
    folded(data)
    assert (root / "keep" / "b").exists()
    assert not (root / "keep" / "a").exists()


def test_killed_while_copying_the_upper_is_as_it_was(
    data: Path, root: Path, layer: LayerPlace
) -> None:
    before, number = facts(root), 0
    while killed_at(number, CHANGING, partial(copied, data, layer)):
        recovered(data)
        assert facts(root) == before, number
        number += 1
    assert number > 40
    recovered(data)
    assert facts(root) == before


def test_killed_on_the_way_back_nothing_is_lost_and_nothing_comes_back(
    data: Path, root: Path, layer: LayerPlace, tmp_path: Path
) -> None:
    number = 0
    while True:
        copied(data, layer)
        change(root)
        killed = killed_at(number, CHANGING, partial(folded, data))
        recovered(data)
        assert said(root) == AFTER, number
        if not killed:
            break
        number += 1
        shutil.rmtree(root)
        shutil.rmtree(data / "work")
        (data / "work").mkdir()
        (root / "dir").mkdir(parents=True)
        (root / "dir" / "other").write_text("changed")
        (root / "dir" / "mine").write_text("mine")
        whiteout(root / "hidden")
    assert number > 10


def test_another_upper_is_left_alone(data: Path, root: Path, layer: LayerPlace) -> None:
    copied(data, layer)
    root.rename(data / "aside")
    root.mkdir()
    (root / "mine").write_text("mine")
    folded(data)
    assert said(root) == {"mine": "mine"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"upper": [0, 0]}',
        '{"upper": [0, 0], "copied": {"../tmp": null}, "others": [], "is_used": false}',
        '{"upper": 1, "copied": [], "others": 1, "is_used": 1}',
    ],
)
def test_a_manifest_that_makes_no_sense_is_heeded_by_nobody(
    data: Path, root: Path, text: str
) -> None:
    (data / "tmp" / "file").write_text("kept")
    (data / "work" / ".copied").write_text(text)
    before = facts(root)
    recovered(data)
    assert facts(root) == before
    assert (data / "tmp" / "file").exists()
    assert os.listdir(data / "work") == []


def test_a_manifest_that_is_too_large_is_not_read(data: Path) -> None:
    manifest = data / "work" / ".copied"
    with manifest.open("wb") as file:
        file.truncate(1 << 40)
    with opened(data) as held:
        fold(held)
        assert not is_copied(held)
