"""`fimctl image create`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A directory that each level packs to another size."""
    shutil.copytree(Path(__file__).parents[2] / "fimd", tmp_path / "rootfs")
    return tmp_path / "rootfs"


def size(rootfs: Path, *words: str, **variables: str) -> int:
    """The size of an image."""
    image = rootfs.with_name("app.flatimage")
    command = [sys.executable, "-P", "-m", "fimctl", "image", "create", "-f", *words]
    subprocess.run(
        [*command, str(rootfs), str(image)],
        check=True,
        capture_output=True,
        env={**os.environ, **variables},
    )
    return image.stat().st_size


def test_it_packs_at_a_level_that_a_person_waits_for(rootfs: Path) -> None:
    quick, thorough = size(rootfs, "-l", "3"), size(rootfs, "-l", "7")
    assert quick > thorough
    assert size(rootfs) == quick
    assert size(rootfs, FIM_COMPRESSION_LEVEL="7") == thorough


def test_attributes_that_an_image_cannot_hold_are_told(rootfs: Path) -> None:
    try:
        os.setxattr(rootfs / "daemon.py", "user.mine", b"x")
    except OSError:
        pytest.skip("this filesystem has no user attributes")
    words = ["image", "create", "-l", "1", str(rootfs), str(rootfs.with_name("app.flatimage"))]
    command = [sys.executable, "-P", "-m", "fimctl", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "the attribute user.mine of 1 file is not kept" in done.stderr
