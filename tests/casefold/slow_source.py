"""A filesystem with a file `Slow`, of which every read takes some seconds, and a file `Fast`.

Arguments: MOUNT_POINT SECONDS. Prints "ready", and "reading" when a read of `Slow` begins.
"""

# ruff: noqa: ARG002 -- the handlers' parameters are those of pyfuse3.Operations

import asyncio
import errno
import os
import stat
import sys

import pyfuse3

from fimd.dwarfs.fuse import run

NAMES = {b"Slow": 2, b"Fast": 3}
CONTENT = b"content"


class SlowSource(pyfuse3.Operations):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(number)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o644 if number > 1 else stat.S_IFDIR | 0o755)
        entry.st_size = len(CONTENT)
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        return entry

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name not in NAMES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.attributes(NAMES[name])

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self.attributes(inode)

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode))

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        if fh == NAMES[b"Slow"]:
            print("reading", flush=True)
            await asyncio.sleep(self.seconds)
        return CONTENT[off : off + size]

    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        for position, (name, number) in list(enumerate(NAMES.items()))[start_id:]:
            attributes = self.attributes(number)
            pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), attributes, position + 1)


if __name__ == "__main__":
    asyncio.run(
        run(SlowSource(float(sys.argv[2])), sys.argv[1], [], lambda: print("ready", flush=True))
    )
