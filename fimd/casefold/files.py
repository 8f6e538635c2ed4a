"""Open files: their descriptors in the source, reading and writing.

A file's handle is its descriptor.
"""

import contextlib
import os
from dataclasses import dataclass

from fimd.base.system_calls import is_in_memory
from fimd.casefold.nodes import WEIGHTY, Node
from fimd.casefold.tree import Tree, proc_path

_KEPT_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
"""What the source is told of. The kernel itself appends (it says at which offset to write), and
direct I/O would want aligned buffers; the other flags were for finding or making the file."""

_ADDED_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A name that has become a pipe or a device underneath is not waited for."""

_PERMISSIONS = 0o7777
_BEGINNING = 128 << 10
"""What the kernel asks for first of a file that is read (bytes)."""


@dataclass(frozen=True, slots=True)
class _OpenFile:
    node: Node
    writable: bool
    size: int


class OpenFiles:
    """The handles that the kernel holds."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files: dict[int, _OpenFile] = {}

    def close(self) -> None:
        """Close all handles, once the kernel is gone."""
        for handle in self._files:
            os.close(handle)
        self._files.clear()

    async def open(self, node: Node, flags: int) -> tuple[int, bool]:
        """Open the file of a node, with the flags of the open call; see `register`."""
        writable = bool(flags & (os.O_ACCMODE | os.O_TRUNC))
        flags = flags & _KEPT_FLAGS | _ADDED_FLAGS
        kept = None if writable else self._tree.kept.take(node)
        if kept is not None:
            handle = kept
        elif writable and node.weighty:
            with self._tree.held(node) as descriptor:
                handle = await self._tree.apart(os.open, proc_path(descriptor), flags)
        else:
            handle = self._tree.open(node, flags)
        if writable and not node.writers:
            self.refresh(node)
        return handle, self.register(handle, node, writable)

    def create(self, name: bytes, directory: int, flags: int, mode: int) -> int:
        """Make and open a file that does not exist; the handle is to be registered."""
        flags = flags & _KEPT_FLAGS | _ADDED_FLAGS | os.O_CREAT | os.O_EXCL
        return os.open(name, flags, mode & _PERMISSIONS, dir_fd=directory)

    def register(self, handle: int, node: Node, writable: bool) -> bool:
        """Take over a descriptor as a handle.

        Returns whether the file looks as it did when it was opened last, so that what the kernel
        has of it still holds. If not, the source is told to get the beginning ready.
        """
        status = os.fstat(handle)
        content = (status.st_mtime_ns, status.st_size)
        unchanged, node.content = node.content == content, content
        self._files[handle] = _OpenFile(node, writable, status.st_size)
        node.handles |= {handle}
        node.writers += writable
        if not (unchanged or writable):
            os.posix_fadvise(handle, 0, _BEGINNING, os.POSIX_FADV_WILLNEED)
        return unchanged

    async def release(self, handle: int) -> Node:
        """Close a handle; its node."""
        file = self._files.pop(handle)
        file.node.handles -= {handle}
        file.node.writers -= file.writable
        if not file.writable and file.node.links:
            self._tree.kept.put(file.node, handle)
        elif file.node.weighty:  # may have to be written back, or freed
            await self._tree.apart(os.close, handle)
        else:
            os.close(handle)
        return file.node

    def refresh(self, node: Node) -> None:
        """Let those who read a file see what is written to it from now on.

        To a union, the file that was opened for reading and the copy that is made for writing
        are two files, and unionfs-fuse goes on reading the old one: so it is opened anew.
        """
        self._tree.kept.drop(node)
        for handle in node.handles:
            with contextlib.suppress(OSError):  # not readable any more: it keeps what it has
                fresh = self._tree.open(node, os.O_RDONLY | _ADDED_FLAGS)
                try:
                    os.dup2(fresh, handle, inheritable=False)
                finally:
                    os.close(fresh)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Read up to `size` bytes; fewer only at the file's end."""
        end = min(offset + size, self._files[handle].size)
        if is_in_memory(handle, offset, end):
            return os.pread(handle, size, offset)
        return await self._tree.apart(os.pread, handle, size, offset)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write; the number of bytes written."""
        if offset + len(data) >= WEIGHTY:
            self._files[handle].node.weighty = True
        return await self._tree.apart(os.pwrite, handle, data, offset)

    async def sync(self, handle: int, data_only: bool) -> None:
        """See fsync(2) and fdatasync(2)."""
        await self._tree.apart(os.fdatasync if data_only else os.fsync, handle)
