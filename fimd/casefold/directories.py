"""The directories of the source that are in use: a descriptor and an index of names each."""

import asyncio
import errno
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from fimd.casefold.index import NameIndex
from fimd.casefold.nodes import Node

OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Apart = Callable[[Callable[[int], list[bytes]], int], Awaitable[list[bytes]]]
"""Runs a function with a descriptor in a thread."""

log = logging.getLogger(__name__)


class Directory:
    """One directory of the source.

    The index is built by one scan in a thread, follows the changes made through the view, and
    is built anew where the directory's modification time says that others changed it.
    """

    def __init__(self, descriptor: int, fold: Callable[[bytes], bytes]) -> None:
        self.descriptor = descriptor
        self._fold = fold
        self.index: NameIndex | None = None
        self._modified = -1
        self._scanning: asyncio.Task[NameIndex] | None = None
        self._journal: list[tuple[bytes | None, bytes | None]] = []
        self._reported = False

    def is_current(self) -> bool:
        """Whether there is an index and nobody but this view has changed the directory since."""
        return self.index is not None and self._modified == self._modification_time()

    async def scan(self, apart: Apart) -> NameIndex:
        """Read the directory anew; callers that come meanwhile wait for the same reading."""
        if self._scanning is None:
            self._scanning = asyncio.create_task(self._scan(apart))
        return await asyncio.shield(self._scanning)

    async def _scan(self, apart: Apart) -> NameIndex:
        try:
            self._journal.clear()
            reading = os.open(
                b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor
            )
            try:
                modified = os.fstat(reading).st_mtime_ns
                index = NameIndex(await apart(_list, reading), self._fold)
                for added, removed in self._journal:
                    _apply(index, added, removed)
                self.index, self._modified = index, modified
                self._report_collisions(index, reading)
                return index
            finally:
                os.close(reading)
        finally:
            self._scanning = None

    def changed(
        self, was_current: bool, added: bytes | None = None, removed: bytes | None = None
    ) -> None:
        """Take in a change made through the view.

        `was_current` is what is_current said just before: if others had changed the directory
        too, the time stays as it was, and the next name that is not found leads to a scan.
        """
        if self._scanning is not None:  # the scan may have read either state
            self._journal.append((added, removed))
        if self.index is not None:
            _apply(self.index, added, removed)
            if was_current:
                self._modified = self._modification_time()

    def _modification_time(self) -> int:
        return os.fstat(self.descriptor).st_mtime_ns

    def _report_collisions(self, index: NameIndex, reading: int) -> None:
        collisions = index.collisions()
        if collisions and not self._reported:
            self._reported = True
            log.warning(
                "names in %s differ only in case, and only the first of each group is found: %s",
                os.readlink(f"/proc/self/fd/{reading}"),
                "; ".join(b", ".join(group).decode("utf-8", "replace") for group in collisions),
            )


class Directories:
    """The most recently used directories of the source, as many as descriptors allow.

    The root stays open: all others are reached from it, one name at a time, no link followed.
    """

    def __init__(
        self, root: Node, descriptor: int, limit: int, fold: Callable[[bytes], bytes]
    ) -> None:
        self._fold = fold
        self._root = root
        self._root_directory = Directory(descriptor, fold)
        self._limit = limit
        self._used: OrderedDict[Node, Directory] = OrderedDict()

    def of(self, node: Node) -> Directory:
        """The directory, opened if need be; its descriptor holds until the next await."""
        directory = self._get(node)
        if directory is not None:
            return directory
        chain = [node]
        while chain[-1].links and self._get(chain[-1].parent) is None:
            chain.append(chain[-1].parent)
        while chain:
            directory = self._used[chain[-1]] = Directory(self._open(chain[-1]), self._fold)
            chain.pop()
        assert directory is not None
        while len(self._used) > self._limit:
            _, oldest = self._used.popitem(last=False)
            os.close(oldest.descriptor)
        return directory

    def discard(self, node: Node) -> None:
        """Close a directory that is not the one it was, or that nobody uses."""
        directory = self._used.pop(node, None)
        if directory is not None:
            os.close(directory.descriptor)

    def close(self) -> None:
        """Close all but the root, whose descriptor is the caller's."""
        while self._used:
            _, directory = self._used.popitem()
            os.close(directory.descriptor)

    def _get(self, node: Node) -> Directory | None:
        if node is self._root:
            return self._root_directory
        directory = self._used.get(node)
        if directory is not None:
            self._used.move_to_end(node)
        return directory

    def _open(self, node: Node) -> int:
        if node.links:
            parent, name = node.links[0]
            above = self._get(parent)
            assert above is not None
            return os.open(name, OPEN, dir_fd=above.descriptor)
        if node.pin is not None:
            return os.dup(node.pin)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _list(descriptor: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(descriptor)]


def _apply(index: NameIndex, added: bytes | None, removed: bytes | None) -> None:
    if removed is not None:
        index.remove(removed)
    if added is not None:
        index.add(added)
