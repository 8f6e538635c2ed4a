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


def test_what_may_not_be_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make something another user's")
    tree = tmp_path / "tree"
    for number in range(8):
        (tree / f"closed{number}").mkdir(parents=True)
        (tree / f"closed{number}").chmod(0o700)
    command = [sys.executable, "-P", "-m", "fimctl", "image", "create", str(tree), "app.flatimage"]
    os.chown(tmp_path, 65534, 65534)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    done = subprocess.run(
        [*become, *command], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    assert lines[-1] == (
        "8 files and directories that this user may not read are not in the image: make it as root "
        "to have them"
    )
