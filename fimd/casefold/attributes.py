"""Attributes between the source and the kernel."""

import os
import stat
from dataclasses import dataclass

import pyfuse3

from fimd.casefold.nodes import Node
from fimd.casefold.spellings import TIMEOUT
from fimd.casefold.tree import proc_path
from fimd.casefold.types import InodeT, ModeT


def entry(node: Node, status: os.stat_result, name_timeout: float = 0.0) -> pyfuse3.EntryAttributes:
    """What the kernel is told of a node, and how long (seconds) it may keep its name."""
    result = pyfuse3.EntryAttributes()
    result.st_ino = InodeT(node.number)
    result.entry_timeout = name_timeout
    result.attr_timeout = TIMEOUT if node.settling is None else 0.0
    result.st_mode = ModeT(status.st_mode)
    result.st_nlink = status.st_nlink if node.links or node.number == pyfuse3.ROOT_INODE else 0
    result.st_uid = status.st_uid
    result.st_gid = status.st_gid
    result.st_rdev = status.st_rdev
    result.st_size = status.st_size
    result.st_blksize = status.st_blksize
    result.st_blocks = status.st_blocks
    result.st_atime_ns = status.st_atime_ns
    result.st_mtime_ns = status.st_mtime_ns
    result.st_ctime_ns = status.st_ctime_ns
    return result


def nothing(timeout: float) -> pyfuse3.EntryAttributes:
    """What the kernel is told where there is no such name, and how long (seconds) it may know."""
    result = pyfuse3.EntryAttributes()
    result.entry_timeout = timeout
    return result


@dataclass(frozen=True, slots=True)
class Change:
    """New attributes; None for what stays as it is. Times are in nanoseconds."""

    uid: int | None
    gid: int | None
    mode: int | None
    size: int | None
    atime: int | None
    mtime: int | None

    @classmethod
    def of(cls, fields: pyfuse3.SetattrFields, new: pyfuse3.EntryAttributes) -> "Change":
        """The change that the kernel asks for."""
        return cls(
            uid=new.st_uid if fields.update_uid else None,
            gid=new.st_gid if fields.update_gid else None,
            mode=stat.S_IMODE(new.st_mode) if fields.update_mode else None,
            size=new.st_size if fields.update_size else None,
            atime=new.st_atime_ns if fields.update_atime else None,
            mtime=new.st_mtime_ns if fields.update_mtime else None,
        )

    def apply(self, descriptor: int, handle: int | None) -> None:
        """Change what a descriptor (O_PATH) stands for; `handle` is an open file of it.

        The owner comes first, because changing it clears the set-id bits, and the times last.
        """
        path = proc_path(descriptor)
        if self.uid is not None or self.gid is not None:
            os.chown(
                path, -1 if self.uid is None else self.uid, -1 if self.gid is None else self.gid
            )
        if self.mode is not None:
            os.chmod(path, self.mode)
        if self.size is not None:
            os.truncate(path if handle is None else handle, self.size)
        if self.atime is not None or self.mtime is not None:
            status = os.fstat(descriptor)
            atime = status.st_atime_ns if self.atime is None else self.atime
            mtime = status.st_mtime_ns if self.mtime is None else self.mtime
            os.utime(path, ns=(atime, mtime))
