"""The source tree: names in any spelling, and nodes reached without following any link.

The source is held by one descriptor. Everything below it is reached by a directory's descriptor
and one name, so that no symbolic link and no renamed directory leads anywhere else.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar, TypeVarTuple, Unpack

from fimd.base.system_calls import file_handle
from fimd.casefold.directories import Directories
from fimd.casefold.kept import Kept
from fimd.casefold.naming import Naming
from fimd.casefold.nodes import Node, NodeTable

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_THREADS = 8
_SOON = 500e-6
"""For so long (seconds) a result is waited for where it is needed: to come back to it by way of
the event loop would take most calls longer than they take themselves."""

LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""To hold whatever a name stands for, a symbolic link included."""


class Found(NamedTuple):
    """A directory's entry: the spelling that is stored, and what the source says of it."""

    stored: bytes
    status: os.stat_result


class Tree:
    """The nodes of a source directory and the ways to them.

    Calls that can take long run `apart`, in a thread; the others block for one round trip to
    the source at most.
    """

    def __init__(
        self,
        source: str,
        descriptors: int,
        naming: Naming,
        *,
        numbers_hold: bool = True,
        kept: int = 0,
    ) -> None:
        """`descriptors` is how many directories may be open at once; see NodeTable.

        `kept` is how many files may be open that nobody uses; see Kept.
        """
        self.naming = naming
        self._root = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="source")
        self.nodes = NodeTable(os.fstat(self._root), self._is_link_to, numbers_hold=numbers_hold)
        self.kept = Kept(kept)
        self.directories = Directories(self.nodes.root, self._root, descriptors, naming.fold)

    def close(self) -> None:
        """Wait for what runs apart, and close every descriptor."""
        self._pool.shutdown()
        self.kept.close()
        self.directories.close()
        os.close(self._root)

    async def apart(self, function: Callable[[Unpack[Arguments]], T], *args: *Arguments) -> T:
        """Run a function in a thread, and serve other requests meanwhile if it takes long."""
        future = self._pool.submit(function, *args)
        try:
            return future.result(_SOON)
        except TimeoutError:
            if future.done():  # the function's own
                raise
            return await asyncio.wrap_future(future)

    async def find(self, parent: Node, name: bytes) -> Found | None:
        """The entry of a directory that some spelling of a name stands for.

        In a directory that this process may search but not read, names are found as they are.
        """
        directory = self.directories.of(parent)
        if self.naming.is_exact:
            return _look(directory.descriptor, name)
        folded = self.naming.fold(name)
        index = directory.index
        if index is None:
            if folded == name:  # stored like this it wins over all other spellings
                found = _look(directory.descriptor, name)
                if found is not None:
                    return found
        else:
            stored = index.find(folded)
            if stored is not None:
                found = _look(directory.descriptor, stored)
                if found is not None:
                    return found
            elif directory.is_current():
                return None
        try:
            stored = (await directory.scan(self.apart)).find(folded)
        except PermissionError:
            stored = name
        return None if stored is None else self.look(parent, stored)

    async def names(self, node: Node) -> list[bytes]:
        """The names of a directory, each as it is stored, read anew."""
        return list(await self.directories.of(node).scan(self.apart))

    def look(self, parent: Node, stored: bytes) -> Found | None:
        """The entry of exactly this spelling."""
        return _look(self.directories.of(parent).descriptor, stored)

    def place(self, parent: Node, found: Found) -> Node:
        """The node of an entry."""
        known = parent.children.get(found.stored)
        identity = known.identity if known is not None else None
        node = self.nodes.place(parent, found.stored, found.status)
        if node is known and node.is_directory and node.identity != identity:
            self.directories.discard(node)  # another directory has taken the name
        return node

    def path(self, node: Node) -> bytes:
        """The path of a node below the source, by its present names."""
        names = []
        while node.links:
            node, name = node.links[-1]
            names.append(name)
        return b"/".join(reversed(names))

    def status(self, node: Node) -> os.stat_result:
        """What the source says of a node, whether or not it still has a name."""
        if node.links:
            parent, name = node.links[-1]
            descriptor = self.directories.of(parent).descriptor
            return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if node is self.nodes.root:
            return os.fstat(self._root)
        for descriptor in node.handles:
            return os.fstat(descriptor)
        if node.pin is not None:
            return os.fstat(node.pin)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def open(self, node: Node, flags: int) -> int:
        """Open a node's file by its present name, or without one; no link is followed."""
        if node.links:
            parent, name = node.links[-1]
            descriptor = self.directories.of(parent).descriptor
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=descriptor)
        with self.held(node) as descriptor:
            return os.open(proc_path(descriptor), flags)

    def forget(self, node: Node, lookups: int) -> None:
        """Drop lookups of a node, and all that was kept for it with the last of them."""
        for gone in self.nodes.forget(node, lookups):
            self.kept.drop(gone)
            if gone.is_directory:
                self.directories.discard(gone)
            if gone.pin is None:
                continue
            if gone.weighty:  # the source frees a large file when this closes
                self._pool.submit(os.close, gone.pin)
            else:
                os.close(gone.pin)

    @contextlib.contextmanager
    def held(self, node: Node) -> Iterator[int]:
        """A descriptor of the node itself (O_PATH), that an await does not invalidate."""
        descriptor = self._hold(node)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _hold(self, node: Node) -> int:
        if node.links:
            parent, name = node.links[-1]
            return os.open(name, LINK, dir_fd=self.directories.of(parent).descriptor)
        if node is self.nodes.root:
            return os.dup(self._root)
        if node.pin is not None:
            return os.dup(node.pin)
        for descriptor in node.handles:
            return os.dup(descriptor)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _is_link_to(self, node: Node, parent: Node, name: bytes) -> bool:
        """Whether a name is one more hard link of a node that has the same number.

        Both are held while their handles are compared, so equal handles are one inode. Where
        the filesystem has no handles, its numbers are its own and can be trusted.
        """
        try:
            other = os.open(name, LINK, dir_fd=self.directories.of(parent).descriptor)
            try:
                with self.held(node) as descriptor:
                    return os.path.sameopenfile(descriptor, other) and (
                        file_handle(descriptor) == file_handle(other)
                    )
            finally:
                os.close(other)
        except OSError:
            return False


def _look(directory: int, stored: bytes) -> Found | None:
    try:
        return Found(stored, os.stat(stored, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return None


def proc_path(descriptor: int) -> str:
    """A path to what a descriptor holds, for calls that take no O_PATH descriptor."""
    return f"/proc/self/fd/{descriptor}"
