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
