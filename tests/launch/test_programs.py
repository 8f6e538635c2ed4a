"""The programs beside those of an image are there whole, or their lack is told."""

import os
import subprocess
from pathlib import Path

import pytest

from fimd.base.errors import NO_ROOM, no_room
from fimd.base.paths import RuntimeTree
from fimd.launch.programs import provide
from tests.support.tmpfs import tmpfs


@pytest.mark.parametrize("room", ["600k", "20m,nr_inodes=200"])
def test_where_there_is_no_room_nothing_is_left_half_and_the_next_try_completes_it(
    tmp_path: Path, room: str
) -> None:
    with tmpfs(tmp_path / "disk", room) as disk:
        tree = RuntimeTree.open(str(disk / "fim"))
        with pytest.raises(OSError, match="No space left") as refused:
            provide(tree)
        assert refused.value.errno in NO_ROOM
        assert str(disk) in no_room(refused.value)
        assert not [name for name in os.listdir(tree.programs) if name.startswith(".")]
        more = ["mount", "-o", "remount,size=20m,nr_inodes=9999", str(disk)]
        subprocess.run(more, check=True, timeout=10)
        provide(tree)
        said = subprocess.run(
            [tree.programs / "busybox", "--list"], capture_output=True, text=True, check=True
        )
        listed = {name for name in said.stdout.split() if name != "busybox" and "/" not in name}
        assert set(os.listdir(tree.applets)) == listed
