"""What layers have, copied up for a union that would spoil it.

unionfs-fuse copies a file under the file's own name: where space runs out, or the program is ended
meanwhile, a part of it stays in the place of the whole. Of a directory whose attributes are changed
it copies all that the layer has in it. And it gives the directories that it makes on the way the
times of that moment. So whatever is about to be changed is put into the upper branch before the
union is asked: a directory alone, and a file whole or not at all.
"""

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVarTuple, Unpack

from fimd.base.system_calls import RENAME_NOREPLACE, link_descriptor, rename
from fimd.casefold.directories import OPEN
from fimd.casefold.nodes import Node
from fimd.casefold.tree import LINK, Tree, proc_path
from fimd.dwarfs.beneath import Beneath

Arguments = TypeVarTuple("Arguments")

_NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE: Final = 128 << 10
_ZEROS: Final = bytes(_PIECE)


class CopyUp:
    """Copies from a union to the first of its branches."""

    def __init__(self, tree: Tree, branches: Sequence[str]) -> None:
        """`branches` are the union's, the upper first; none where there is nothing to be done."""
        self._tree = tree
        self._layers = branches[1:]
        self._upper = os.open(branches[0], OPEN) if branches else -1
        self._under_way: dict[Node, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Close the upper branch."""
        if self._upper >= 0:
            os.close(self._upper)

    async def bring(self, node: Node, size: int | None = None) -> None:
        """Have a node in the upper branch; of a file `size` bytes are enough, if that is given."""
        if self._upper < 0 or node.is_up or not node.links:
            return
        task = self._under_way.get(node)
        if task is None:
            task = self._under_way[node] = asyncio.create_task(self._bring(node, size))
            task.add_done_callback(lambda _: self._under_way.pop(node))
        await asyncio.shield(task)

    async def is_of_a_layer(self, node: Node) -> bool:
        """Tell whether a branch other than the upper one has a node's path."""
        path = self._tree.path(node)
        return await self._tree.apart(branches_with, self._layers, path) > 0

    async def _bring(self, node: Node, size: int | None) -> None:
        parent, name = node.links[-1]
        await self.bring(parent)
        with self._tree.held(parent) as union, Beneath(self._upper) as upper:
            directory, _ = upper.parent(self._tree.path(node))
            if not _has(directory, name):
                await self._copy(node, union, directory, size)
        node.is_up = True

    async def _copy(self, node: Node, union: int, directory: int, size: int | None) -> None:
        parent, name = node.links[-1]
        status = os.stat(name, dir_fd=union, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            _keep_times(directory, _make, union, name, directory, status)
            return
        copy = await self._tree.apart(_Copy, union, name, directory, size)
        try:
            if (parent, name) in node.links:  # or it has been removed meanwhile
                _keep_times(directory, copy.publish, name)
        finally:
            copy.close()


class _Copy:
    """A complete copy of a file, which has no name yet."""

    def __init__(self, union: int, name: bytes, directory: int, size: int | None) -> None:
        """Copy up to `size` bytes of a name in the union to a directory of the upper branch."""
        self._directory = directory
        self._part: bytes | None = None
        source = os.open(name, _READ, dir_fd=union)
        try:
            status = os.fstat(source)
            self._fd = self._open()
            try:
                _copy_content(source, self._fd, status.st_size if size is None else size)
                with suppress(PermissionError):  # some file systems keep neither
                    os.fchown(self._fd, status.st_uid, status.st_gid)
                    os.fchmod(self._fd, stat.S_IMODE(status.st_mode))
                os.utime(self._fd, ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(self._fd)
            except BaseException:
                self.close()
                raise
        finally:
            os.close(source)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=self._directory)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        # what libfuse calls a file without a name that is open, and no commit takes
        self._part = b".fuse_hidden" + secrets.token_hex(8).encode()
        flags |= os.O_CREAT | os.O_EXCL
        return os.open(self._part, flags, 0o600, dir_fd=self._directory)

    def publish(self, name: bytes) -> None:
        """Give it its name, which nothing has."""
        if self._part is None:
            link_descriptor(self._fd, self._directory, os.fsdecode(name))
        else:
            rename(self._part, name, self._directory, self._directory, RENAME_NOREPLACE)
            self._part = None

    def close(self) -> None:
        """Close it; without a name it is gone."""
        os.close(self._fd)
        if self._part is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._part, dir_fd=self._directory)


def _copy_content(source: int, target: int, size: int) -> None:
    """Copy so many bytes; what is zero stays a hole."""
    size = min(size, os.fstat(source).st_size)
    os.ftruncate(target, size)
    position = 0
    while piece := os.pread(source, min(_PIECE, size - position), position):
        if piece != _ZEROS[: len(piece)]:
            written = 0
            while written < len(piece):
                written += os.pwrite(target, memoryview(piece)[written:], position + written)
        position += len(piece)
    if position < size:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _make(union: int, name: bytes, directory: int, status: os.stat_result) -> None:
    """Make in the upper branch what is no regular file, with the attributes that it has."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=union), name, dir_fd=directory)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(name, stat.S_IMODE(status.st_mode), dir_fd=directory)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=directory)
    made = os.open(name, LINK, dir_fd=directory)  # or the link that is there in its place by now
    try:
        path = proc_path(made)
        with suppress(PermissionError):  # some file systems keep neither
            os.chown(path, status.st_uid, status.st_gid)
            if not stat.S_ISLNK(status.st_mode):  # chown has cleared bits, which mkdir knows not
                os.chmod(path, stat.S_IMODE(status.st_mode))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(made)


def _keep_times(
    directory: int, change: Callable[[Unpack[Arguments]], None], *arguments: *Arguments
) -> None:
    """Change what is in a directory, which then has the times that it had."""
    before = os.stat(".", dir_fd=directory)
    change(*arguments)
    os.utime(".", ns=(before.st_atime_ns, before.st_mtime_ns), dir_fd=directory)


def _has(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def branches_with(branches: Sequence[str], path: bytes) -> int:
    """Return how many branches have a path. Raises OSError where that can't be told."""
    return sum(_is_there(branch, path) for branch in branches)


def _is_there(branch: str, path: bytes) -> bool:
    """Tell whether a branch has a path, without following what a program has linked in it."""
    top = os.open(branch, OPEN)
    try:
        with Beneath(top) as beneath:
            parent, name = beneath.parent(path)
            os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise
    finally:
        os.close(top)
    return True
