"""An archive is unpacked where programs in sandboxes may write, and they change nothing by that."""

import os
import tarfile
from pathlib import Path

import pytest

from fimd.base.removal import remove_tree
from fimd.flatimage.rootfs import open_rootfs


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
