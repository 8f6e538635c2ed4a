"""Changes to names: making, removing, renaming and linking entries.

While the kernel asks for one of these it keeps all others out of the directories concerned, so
nothing comes between finding a name and changing it, however long the source takes.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fimd.base.system_calls import RENAME_EXCHANGE, RENAME_NOREPLACE, rename
from fimd.casefold.copy_up import CopyUp
from fimd.casefold.nodes import Node
from fimd.casefold.spellings import Spellings
from fimd.casefold.tree import LINK, Found, Tree, proc_path

T = TypeVar("T")

_SET_IDS = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a new entry is to be."""

    uid: int
    gid: int


class Namespace:
    """The names of a tree."""

    def __init__(self, tree: Tree, spellings: Spellings, copy_up: CopyUp) -> None:
        self._tree = tree
        self._spellings = spellings
        self._copy_up = copy_up
        self._stored = tree.naming.stored
        self._self = Owner(os.geteuid(), os.getegid())

    async def entry(self, parent: Node, name: bytes) -> Found:
        """The entry that a name stands for; raises FileNotFoundError."""
        found = await self._tree.find(parent, name)
        if found is None:
            raise _error(errno.ENOENT)
        return found

    async def make(
        self, parent: Node, name: bytes, mode: int, owner: Owner, make: Callable[[bytes, int], T]
    ) -> tuple[Found, T]:
        """Make an entry by `make(stored name, directory's descriptor)` and give it its owner."""
        if await self._tree.find(parent, name) is not None:
            raise _error(errno.EEXIST)
        await self._copy_up.bring(parent)
        stored = self._stored(name)
        directory = self._tree.directories.of(parent)
        was_current = directory.is_current()
        made = make(stored, directory.descriptor)
        directory.changed(was_current, added=stored)
        self._give(stored, directory.descriptor, mode, owner)
        return Found(
            stored, os.stat(stored, dir_fd=directory.descriptor, follow_symlinks=False)
        ), made

    def _give(self, name: bytes, directory: int, mode: int, owner: Owner) -> None:
        """Give a new entry to whoever made it, as far as this process may."""
        if owner == self._self or self._self.uid not in (0, owner.uid):
            return
        inherits_group = os.fstat(directory).st_mode & stat.S_ISGID
        gid = -1 if inherits_group else owner.gid
        try:
            os.chown(name, owner.uid, gid, dir_fd=directory, follow_symlinks=False)
        except PermissionError:  # a group that this process is not in
            if self._self.uid == 0:
                raise
        if stat.S_ISREG(mode) and mode & _SET_IDS:  # chown has cleared them
            held = os.open(name, LINK, dir_fd=directory)
            try:
                os.chmod(proc_path(held), stat.S_IMODE(mode))
            finally:
                os.close(held)

    async def remove(self, parent: Node, name: bytes, remove: Callable[[bytes, int], None]) -> None:
        """Remove an entry by `remove(stored name, directory's descriptor)`."""
        stored, _ = await self.entry(parent, name)
        directory = self._tree.directories.of(parent)
        was_current = directory.is_current()
        pin = self._pin(parent, stored)
        try:
            remove(stored, directory.descriptor)
        except OSError:
            if pin is not None:
                os.close(pin)
            raise
        if self._tree.look(parent, stored) is not None:
            # what it had replaced in a layer is back: fuse-overlayfs has marked no deletion
            with contextlib.suppress(OSError):
                remove(stored, directory.descriptor)
        directory.changed(was_current, removed=stored)
        self._gone(parent, name, stored, pin)

    def _pin(self, parent: Node, stored: bytes) -> int | None:
        """A descriptor that keeps what is about to lose its name within the kernel's reach."""
        node = parent.children.get(stored)
        if node is None:
            return None
        self._tree.kept.drop(node)
        return os.open(stored, LINK, dir_fd=self._tree.directories.of(parent).descriptor)

    def _gone(self, parent: Node, name: bytes, stored: bytes, pin: int | None) -> None:
        node = self._tree.nodes.unlink(parent, stored, pin)
        if node is not None:
            self._spellings.withdraw(node, parent, name, stored)

    async def link(self, node: Node, parent: Node, name: bytes) -> Found:
        """Give a node one more name."""
        if not node.links:
            raise _error(errno.ENOENT)
        if await self._tree.find(parent, name) is not None:
            raise _error(errno.EEXIST)
        await self._copy_up.bring(node)
        await self._copy_up.bring(parent)
        stored = self._stored(name)
        was_current = self._tree.directories.of(parent).is_current()
        above, old = node.links[-1]
        with self._tree.held(above) as source, self._tree.held(parent) as target:
            await self._tree.apart(_link, old, stored, source, target)
            status = os.stat(stored, dir_fd=target, follow_symlinks=False)
        self._tree.directories.of(parent).changed(was_current, added=stored)
        self._tree.nodes.link(node, parent, stored)
        return Found(stored, status)

    async def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename an entry; what it replaces goes in the same step.

        The flags are those of renameat2(2) without RENAME_WHITEOUT. An entry that is replaced
        under another spelling is replaced as it is stored, and then given the new one.
        """
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise _error(errno.EINVAL)
        stored = (await self.entry(parent, name)).stored
        target = await self._tree.find(new_parent, new_name)
        if target is not None and new_parent is parent and target.stored == stored:
            if self._tree.look(parent, self._stored(new_name)) is not None:
                return  # as it is already, or else it would replace a rival that it hides
            target = None  # only the spelling changes
        if flags & RENAME_EXCHANGE:
            if target is None:
                raise _error(errno.ENOENT)
            await self._exchange((parent, name, stored), (new_parent, new_name, target.stored))
            return
        if flags & RENAME_NOREPLACE and target is not None:
            raise _error(errno.EEXIST)
        node = parent.children.get(stored)
        if node is not None:
            if node.is_directory and await self._copy_up.is_of_a_layer(node):
                raise _error(errno.EXDEV)
            await self._copy_up.bring(node)
            await self._copy_up.bring(new_parent)
        await self._move((parent, name, stored), (new_parent, new_name, target and target.stored))

    async def _move(
        self, old: tuple[Node, bytes, bytes], new: tuple[Node, bytes, bytes | None]
    ) -> None:
        (parent, name, stored), (new_parent, new_name, replaced) = old, new
        wanted = self._stored(new_name)
        landing = wanted if replaced is None else replaced
        directories = self._tree.directories
        was_current = directories.of(parent).is_current()
        new_was_current = directories.of(new_parent).is_current()
        pin = None if replaced is None else self._pin(new_parent, replaced)
        with self._tree.held(parent) as source, self._tree.held(new_parent) as target:
            try:
                await self._tree.apart(rename, stored, landing, source, target, 0)
            except OSError:
                if pin is not None:
                    os.close(pin)
                raise
            if landing != wanted and self._tree.look(new_parent, wanted) is None:
                with contextlib.suppress(OSError):  # it keeps the spelling of what it replaced
                    await self._tree.apart(rename, landing, wanted, target, target, 0)
                    landing = wanted
        directories.of(parent).changed(was_current, removed=stored)
        directory = directories.of(new_parent)
        if replaced is not None:
            directory.changed(new_was_current, removed=replaced)
            self._gone(new_parent, new_name, replaced, pin)
        directory.changed(new_was_current, added=landing)
        self._tree.nodes.move(parent, stored, new_parent, landing)
        self._respell((parent, name, stored), (new_parent, new_name, landing))

    async def _exchange(
        self, one: tuple[Node, bytes, bytes], other: tuple[Node, bytes, bytes]
    ) -> None:
        (parent, _, stored), (other_parent, _, other_stored) = one, other
        directories = self._tree.directories
        was_current = directories.of(parent).is_current()
        other_was_current = directories.of(other_parent).is_current()
        with self._tree.held(parent) as source, self._tree.held(other_parent) as target:
            await self._tree.apart(rename, stored, other_stored, source, target, RENAME_EXCHANGE)
        directories.of(parent).changed(was_current)
        directories.of(other_parent).changed(other_was_current)
        self._tree.nodes.exchange(parent, stored, other_parent, other_stored)
        self._respell(one, other)
        self._respell(other, one)

    def _respell(self, old: tuple[Node, bytes, bytes], new: tuple[Node, bytes, bytes]) -> None:
        """Tell the kernel that a node has left a name, when it is under its new one."""
        new_parent, _, stored = new
        node = new_parent.children.get(stored)
        if node is not None:
            self._spellings.withdraw(node, *old)
            self._spellings.moved(node, *new)


def _link(old: bytes, new: bytes, source: int, target: int) -> None:
    os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
