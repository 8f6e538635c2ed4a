"""Archives and layers are unpacked where programs in sandboxes may write: nothing comes of that."""

import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from fimd.base.removal import remove_tree
from fimd.dwarfs.extract import extract
from fimd.dwarfs.reader import Image
from fimd.dwarfs.write import create
from fimd.flatimage.errors import RootfsError
from fimd.flatimage.rootfs import open_rootfs, unpack


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for number in range(50):
        (source / f"folder-{number}").mkdir(parents=True)
        (source / f"folder-{number}" / "file").write_text("own")
    with tarfile.open(tmp_path / "rootfs.tar", "w") as tar:
        tar.add(source, ".")
    return tmp_path / "rootfs.tar"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory outside with the same names."""
    for number in range(50):
        (tmp_path / "canary" / f"folder-{number}").mkdir(parents=True)
        (tmp_path / "canary" / f"folder-{number}" / "file").write_text("secret")
    for path in (tmp_path / "canary").rglob("*"):
        path.chmod(0o755)
    return tmp_path / "canary"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_link_in_its_place_is_neither_packed_nor_removed(
    tmp_path: Path, archive: Path, canary: Path, depth: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_rootfs(archive, scratch=scratch, remove=remove_tree) as rootfs:
        [place] = scratch.iterdir()
        assert place.stat().st_mode & 0o777 == 0o700
        for _ in range(depth):
            place = next(path for path in place.iterdir() if path.is_dir())
        place.rename(tmp_path / "aside")
        place.symlink_to(canary)
        if depth < 2:
            names = os.listdir(rootfs.path)
            assert {(rootfs.path / name / "file").read_text() for name in names} == {"own"}
            assert len(names) == 50
    assert list(scratch.iterdir()) == []
    for path in canary.iterdir():
        assert (path / "file").read_text() == "secret"
        assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("kind", ["archive", "layer"])
def test_what_is_exchanged_for_a_link_right_after_it_was_made_gives_its_mode_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source, target, canary = tmp_path / "source", tmp_path / "target", tmp_path / "canary"
    source.mkdir()
    os.mkfifo(source / "pipe")
    (source / "pipe").chmod(0o666)
    canary.touch(0o600)

    def exchanged(name: str) -> None:
        make = getattr(os, name)

        def made(path: str | bytes, *arguments: int, dir_fd: int) -> None:
            make(path, *arguments, dir_fd=dir_fd)
            os.unlink(path, dir_fd=dir_fd)
            os.symlink(canary, path, dir_fd=dir_fd)

        monkeypatch.setattr(os, name, made)

    packed = tmp_path / "packed"
    if kind == "archive":
        with tarfile.open(packed, "w") as tar:
            tar.add(source, ".")
        target.mkdir()
    else:
        create(source, packed, level=1)
    exchanged("mkfifo")
    exchanged("mknod")
    with suppress(OSError, RootfsError):
        if kind == "archive":
            unpack(packed, target)
        else:
            with Image.open(packed) as image:
                extract(image, target)
    assert (target / "pipe").is_symlink()
    assert canary.stat().st_mode & 0o777 == 0o600
