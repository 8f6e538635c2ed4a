"""The canonical form of what every overlay leaves in an upper directory."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fimd.dwarfs.write import PackError, SourceTree, create_from
from fimd.layers.place import LayerPlace
from fimd.trees.canonical import canonical
from fimd.trees.merged import Merged, is_whiteout, open_layers
from fimd.trees.upper import read_upper
from tests.support.layers import MakeLayer, shown, whiteout
from tests.support.overlays import HAS_UNIONFS


def lower_tree(top: Path) -> None:
    """A lower layer with something to delete in every way."""
    for name in ("kept/a", "opaque/old", "opaque/both", "opaque/sub/deep", "gone/a/b", "file"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (top / "turned").mkdir()
    (top / "turned" / "inner").write_text("x")
    (top / "link").symlink_to("file")


@contextmanager
def kernel(lower: Path, upper: Path, merged: Path) -> Iterator[Path]:
    """Kernel overlayfs as root mounts it."""
    work = upper.with_name("work")
    work.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


@contextmanager
def fuse(lower: Path, upper: Path, merged: Path) -> Iterator[Path]:
    """fuse-overlayfs."""
    work = upper.with_name("work")
    work.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["fuse-overlayfs", "-o", options, merged], check=True, capture_output=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


@contextmanager
def union(lower: Path, upper: Path, merged: Path) -> Iterator[Path]:
    """unionfs-fuse."""
    branches = f"{upper}=RW:{lower}=RO"
    options = "cow,hide_meta_files"
    subprocess.run(["unionfs", "-o", options, branches, merged], check=True, capture_output=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


BACKENDS = {
    "kernel": kernel,
    "fuse-overlayfs": fuse,
    **({"unionfs": union} if HAS_UNIONFS else {}),
}


def change(top: Path) -> None:
    """Delete and replace in every way."""
    (top / "file").unlink()
    shutil.rmtree(top / "gone")
    shutil.rmtree(top / "opaque")
    (top / "opaque").mkdir(mode=0o750)
    (top / "opaque" / "both").write_text("new")
    (top / "opaque" / "sub").mkdir()
    (top / "opaque" / "sub" / "fresh").write_text("new")
    shutil.rmtree(top / "turned")
    (top / "turned").write_text("a file now")
    (top / "link").unlink()
    (top / "link").mkdir()
    (top / "link" / "inner").write_text("x")
    (top / "kept" / "a").unlink()
    (top / "empty").mkdir()
    (top / "new\nline").write_text("x")
    os.symlink("new\nline", os.path.join(os.fsencode(top), b"not-\xff-utf8"))


def visible(top: Path) -> dict[bytes, tuple[int, bytes]]:
    """What `shown` says of layers, of a directory."""
    found = {}
    base = os.fsencode(top)
    for directory, names, files in os.walk(base):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            facts = os.lstat(path)
            content = b""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, base)] = (facts.st_mode, content)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_shows_over_the_lower_one_what_the_overlay_showed(
    backend: str, tmp_path: Path, make_layer: MakeLayer
) -> None:
    if os.getuid() != 0:
        pytest.skip("mounting here needs root; the end-to-end tests do the same as a plain user")
    place = make_layer(lower_tree)
    lower = Path(place.path).with_name("source-0")
    upper, merged = tmp_path / "upper", tmp_path / "merged"
    upper.mkdir()
    merged.mkdir()
    with BACKENDS[backend](lower, upper, merged):
        change(merged)
        expected = visible(merged)
    with SourceTree(upper) as tree, open_layers([place]) as images:
        entries = canonical(read_upper(tree, tree.scan()), Merged(images))
        output = os.open(tmp_path / "new.layer", os.O_RDWR | os.O_CREAT)
        create_from(entries, tree.read, output)
        os.close(output)
    layer = LayerPlace(str(tmp_path / "new.layer"), 0, os.stat(tmp_path / "new.layer").st_size)
    found = shown([place, layer])
    found.pop(b"")
    assert found == expected
    names = {entry.path for entry in entries}
    assert not any(b".wh." in name or b"unionfs" in name for name in names)


def entries_of(upper: Path, lower: LayerPlace) -> dict[bytes, bool]:
    """The paths in canonical form, and whether each is a deletion."""
    with SourceTree(upper) as tree, open_layers([lower]) as images:
        entries = canonical(read_upper(tree, tree.scan()), Merged(images))
    return {entry.path: is_whiteout(entry.mode, entry.rdev) for entry in entries}


def test_an_opaque_directory_becomes_one_deletion_for_each_name_that_it_hides(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    lower = make_layer(lower_tree)
    upper = tmp_path / "upper"
    (upper / "opaque" / "sub").mkdir(parents=True)
    (upper / "opaque" / ".wh..wh..opq").touch()
    assert entries_of(upper, lower) == {
        b"": False,
        b"opaque": False,
        b"opaque/old": True,
        b"opaque/both": True,
        b"opaque/sub": False,
        b"opaque/sub/deep": True,
    }


def test_the_attribute_of_an_opaque_directory_is_understood(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    lower = make_layer(lower_tree)
    upper = tmp_path / "upper"
    (upper / "gone" / "a").mkdir(parents=True)
    try:
        os.setxattr(upper / "gone", "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("this filesystem has no user attributes")
    assert entries_of(upper, lower)[b"gone/a/b"] is True


def test_a_mark_of_unionfs_brings_the_directory_that_it_deletes_from(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    lower = make_layer(lower_tree)
    upper = tmp_path / "upper"
    (upper / ".unionfs" / "gone" / "a").mkdir(parents=True)
    (upper / ".unionfs" / "gone" / "a" / "b_HIDDEN~").touch()
    (upper / ".unionfs" / "never-was_HIDDEN~").touch()
    found = entries_of(upper, lower)
    assert found == {b"": False, b"gone": False, b"gone/a": False, b"gone/a/b": True}


def test_a_deletion_where_no_lower_directory_is_is_left_out(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    lower = make_layer(lower_tree)
    upper = tmp_path / "upper"
    (upper / "only-here").mkdir(parents=True)
    whiteout(upper / "only-here" / "x")
    assert b"only-here/x" not in entries_of(upper, lower)


def test_a_file_that_only_looks_like_a_mark_stays_a_file(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    lower = make_layer(lower_tree)
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / ".wh.file").write_text("not empty")
    (upper / "x_HIDDEN~").touch()
    assert entries_of(upper, lower) == {b"": False, b".wh.file": False, b"x_HIDDEN~": False}


def test_a_copy_that_refers_to_a_lower_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "moved").mkdir()
    try:
        os.setxattr(tmp_path / "upper" / "moved", "user.overlay.redirect", b"old")
    except OSError:
        pytest.skip("this filesystem has no user attributes")
    with SourceTree(tmp_path / "upper") as tree, pytest.raises(PackError, match="moved"):
        read_upper(tree, tree.scan())
