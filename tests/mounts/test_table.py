"""The kernel's mount table is read exactly, and its changes are waited for."""

import asyncio
import os
import select
import subprocess
from pathlib import Path

import pytest

from fimd.base.errors import MountError
from fimd.dwarfs import fusermount
from fimd.mounts.process import Process
from fimd.mounts.table import Mount, MountTable, mounts, parse
from fimd.mounts.unmount import detach


def test_escaped_names_and_optional_fields_are_read() -> None:
    lines = (
        rb"36 35 98:0 /root /mnt\040with\134odd\011name rw shared:1 master:2 - ext4 /dev/x\040y rw"
        b"\n"
        b"37 35 0:44 / /tmp/\xff ro - fuse.dwarfs fimd-1 ro\n"
    )
    assert parse(lines) == [
        Mount("98:0", "/root", "/mnt with\\odd\tname", "ext4", "/dev/x y"),
        Mount("0:44", "/", os.fsdecode(b"/tmp/\xff"), "fuse.dwarfs", "fimd-1"),
    ]


async def test_a_mount_that_does_not_come_is_an_error_in_time(tmp_path: Path) -> None:
    with MountTable() as table:
        assert "/proc" in table.points()
        await table.wait_for("/proc", mounted=True, seconds=1)
        with pytest.raises(MountError, match=r"not mounted within 0\.1 s"):
            await table.wait_for(str(tmp_path), mounted=True, seconds=0.1)


@pytest.mark.parametrize("mtab", ["/proc/self/mounts", "/nowhere"])
async def test_mounts_and_unmounts_are_noticed_as_they_happen_with_and_without_mtab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mtab: str
) -> None:
    monkeypatch.setattr(fusermount, "_MOUNTS", mtab)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")
    source = tmp_path / "source"
    point = tmp_path / "point"
    source.mkdir()
    point.mkdir()
    command = ["fuse-overlayfs", "-f", "-o", f"lowerdir={source}", str(point)]
    with MountTable() as table:
        waiting = asyncio.create_task(table.wait_for(str(point), mounted=True, seconds=10))
        await asyncio.sleep(0)
        process = Process.spawn(command)
        await waiting
        assert str(point) in table.points()
        gone = asyncio.create_task(table.wait_for(str(point), mounted=False, seconds=10))
        await detach(str(point))
        await gone
        assert await process.wait(60)


def test_a_process_that_has_ended_has_none_whether_it_was_waited_for_or_not() -> None:
    with subprocess.Popen(["true"]) as process:
        ended = os.pidfd_open(process.pid)
        select.select([ended], [], [], 60)
        os.close(ended)
        with pytest.raises(ProcessLookupError):
            mounts(process.pid)
    with pytest.raises(FileNotFoundError):
        mounts(process.pid)
