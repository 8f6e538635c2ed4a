"""A file system that keeps names and bytes and nothing else, as exFAT does.

No links, no devices, fifos or sockets, no owners, no modes, no extended attributes, no files
without a name, and no two names that trade places. As a program it takes SOURCE MOUNT_POINT UID
GID, whose everything is.
"""

# ruff: noqa: ARG002 -- the handlers' meaning and parameters are those of pyfuse3.Operations

import asyncio
import contextlib
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from fimd.base.system_calls import RENAME_EXCHANGE
from fimd.casefold import view
from fimd.casefold.naming import NAMINGS

PROJECT = Path(__file__).resolve().parents[2]
MODE = 0o755


def refused(number: int) -> Any:
    async def handler(*_: object) -> Any:
        raise pyfuse3.FUSEError(number)

    return handler


class PlainDisk(view.View):
    """The view without what such a file system has not."""

    uid = gid = 0

    symlink = link = refused(errno.EPERM)
    getxattr = listxattr = setxattr = removexattr = refused(errno.EOPNOTSUPP)

    async def mknod(self, parent: Any, name: Any, mode: Any, rdev: Any, ctx: Any) -> Any:
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)
        return self._plain(await super().mknod(parent, name, mode, rdev, ctx))

    async def rename(self, *arguments: Any) -> None:
        if arguments[4] & RENAME_EXCHANGE:
            raise pyfuse3.FUSEError(errno.EINVAL)
        await super().rename(*arguments)

    async def setattr(self, inode: Any, attr: Any, fields: Any, fh: Any, ctx: Any) -> Any:
        if fields.update_uid or fields.update_gid:
            raise pyfuse3.FUSEError(errno.EPERM)
        if fields.update_mode:
            attr.st_mode = MODE
        return self._plain(await super().setattr(inode, attr, fields, fh, ctx))

    async def lookup(self, parent: Any, name: Any, ctx: Any) -> Any:
        return self._plain(await super().lookup(parent, name, ctx))

    async def getattr(self, inode: Any, ctx: Any) -> Any:
        return self._plain(await super().getattr(inode, ctx))

    async def mkdir(self, parent: Any, name: Any, mode: Any, ctx: Any) -> Any:
        return self._plain(await super().mkdir(parent, name, MODE, ctx))

    async def create(self, parent: Any, name: Any, mode: Any, flags: Any, ctx: Any) -> Any:
        info, entry = await super().create(parent, name, MODE, flags, ctx)
        return info, self._plain(entry)

    def _plain(self, entry: Any) -> Any:
        entry.st_mode = stat.S_IFMT(entry.st_mode) | MODE
        entry.st_uid, entry.st_gid = self.uid, self.gid
        return entry


@contextlib.contextmanager
def plain_disk(base: Path, uid: int, gid: int) -> Iterator[Path]:
    """Mount one in a new directory, whose content lies beside it."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a filesystem for others")
    source, point = base / "plain.source", base / "plain"
    source.mkdir()
    point.mkdir()
    words = [sys.executable, "-m", "tests.support.plain_disk", *map(str, (source, point, uid, gid))]
    server = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        yield point
    finally:
        subprocess.run(["umount", "--lazy", point], check=False, timeout=10)
        server.kill()
        server.wait()
        server.stdout.close()


def ready() -> None:
    """Say that the kernel has the mount."""
    print("ready", flush=True)


if __name__ == "__main__":
    PlainDisk.uid, PlainDisk.gid = map(int, sys.argv[3:])
    view.View = PlainDisk  # type: ignore[misc]
    serving = view.serve(
        *sys.argv[1:3], naming=NAMINGS["exact"], fsname="plain", allow_other=True, on_ready=ready
    )
    asyncio.run(serving)
