"""Writable stacks: one overlay (and view) per data directory, shared by all of its instances."""

import asyncio
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import structlog

from fimd.casefold.mount import View
from fimd.errors import BusyError, FimError, MountError, UnsupportedError
from fimd.instances.data import DataDirectory, remove_work
from fimd.layers.shared import Layer
from fimd.mounts.process import Process
from fimd.mounts.table import MountTable
from fimd.mounts.unmount import detach, remove_directory
from fimd.overlays import BACKENDS, FALLBACK
from fimd.overlays.stack import Overlay, StackDirectory
from fimd.paths import RuntimeTree

log = structlog.get_logger(__name__)

CASEFOLD_MODES: Final = ("off", "on", "preserve")


@dataclass(frozen=True)
class StackSpec:
    """What instances must agree on to share a data directory."""

    data: DataDirectory
    layers: tuple[str, ...]
    """Identifiers of the layers, base first."""
    overlay: str
    casefold: str

    @property
    def id(self) -> str:
        """16 hexadecimal digits that stand for the upper directory."""
        upper = f"{self.data.device}:{self.data.inode}"
        return hashlib.blake2b(upper.encode(), digest_size=8).hexdigest()


@dataclass
class Stack:
    """A mounted stack. Its owner is Stacks; others look."""

    spec: StackSpec
    directory: StackDirectory
    overlay: Overlay
    overlay_name: str
    """The backend that is mounted: another than the spec's where that was refused."""
    view: Process | None
    warnings: tuple[str, ...]
    users: set[int] = field(default_factory=set)

    @property
    def root(self) -> str:
        """The tree that an instance sees as /."""
        return self._view_point if self.view is not None else self.overlay.root

    @property
    def _view_point(self) -> str:
        return os.path.join(self.directory.path, "view")


class Stacks:
    """All writable stacks of this user."""

    def __init__(self, tree: RuntimeTree, table: MountTable, view: View, seconds: float) -> None:
        self._tree = tree
        self._table = table
        self._view = view
        self._seconds = seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stacks: dict[str, Stack] = {}

    async def acquire(self, spec: StackSpec, layers: list[Layer], pid: int) -> Stack:
        """Let the process use a stack, which is mounted where it isn't yet.

        Raises BusyError, with the PIDs, where others use its data directory with other layers or
        another overlay; MountError or UnsupportedError where it can't be mounted.
        """
        async with self._lock(spec.id):
            stack = self._stacks.get(spec.id)
            if stack is None:
                stack = await self._mount(spec, layers)
                self._stacks[spec.id] = stack
            elif stack.spec != spec:
                users = ", ".join(map(str, sorted(stack.users)))
                raise BusyError(
                    f"{spec.data.path} is in use with {_difference(stack.spec, spec)} by process "
                    f"{users}: end that first, or set FIM_DIR_DATA to another directory"
                )
            stack.users.add(pid)
            return stack

    async def release(self, stack: Stack, pid: int) -> None:
        """Give a stack back; with its last user it is unmounted."""
        async with self._lock(stack.spec.id):
            stack.users.discard(pid)
            if not stack.users and self._stacks.get(stack.spec.id) is stack:
                await self._unmount(stack)
                del self._stacks[stack.spec.id]

    def users(self, data: DataDirectory) -> set[int]:
        """Return the PIDs that use a data directory now."""
        stack = self._stacks.get(StackSpec(data, (), "", "").id)
        return set(stack.users) if stack else set()

    def _lock(self, stack_id: str) -> asyncio.Lock:
        return self._locks.setdefault(stack_id, asyncio.Lock())

    async def _mount(self, spec: StackSpec, layers: list[Layer]) -> Stack:
        sources = tuple(layer.source for layer in layers)
        directory = StackDirectory(spec.id, str(self._tree.stack(spec.id)), len(layers), sources)
        await asyncio.to_thread(_prepare, directory, spec.data, layers)
        try:
            overlay, name, warnings = await self._mount_overlay(directory, spec)
            try:
                view = await self._mount_view(directory, spec, overlay)
            except BaseException:
                await _unmount_overlay(overlay)
                raise
        except BaseException:
            await asyncio.shield(asyncio.to_thread(_clean, directory, spec.data))
            raise
        log.info("stack mounted", fim_stack=spec.id, data=spec.data.path, overlay=name)
        stack = Stack(spec, directory, overlay, name, view, warnings)
        overlay.process.on_end(lambda: self._on_process_end(stack, "overlay"))
        if view is not None:
            view.on_end(lambda: self._on_process_end(stack, "casefold"))
        return stack

    async def _mount_overlay(
        self, directory: StackDirectory, spec: StackSpec
    ) -> tuple[Overlay, str, tuple[str, ...]]:
        try:
            overlay = await BACKENDS[spec.overlay](directory, self._table, self._seconds)
        except (MountError, UnsupportedError) as error:
            if spec.overlay == FALLBACK:
                raise
            await asyncio.to_thread(_renew_work, directory, spec.data)
            overlay = await BACKENDS[FALLBACK](directory, self._table, self._seconds)
            reason = f"the overlay {spec.overlay} was refused ({error}); using {FALLBACK}"
            log.warning("overlay fell back", fim_stack=spec.id, reason=reason)
            return overlay, FALLBACK, (reason,)
        return overlay, spec.overlay, ()

    async def _mount_view(
        self, directory: StackDirectory, spec: StackSpec, overlay: Overlay
    ) -> Process | None:
        if spec.casefold == "off":
            return None
        point = os.path.join(directory.path, "view")
        os.mkdir(point)
        return await self._view(spec.id, overlay.root, point, spec.casefold == "preserve")

    def _on_process_end(self, stack: Stack, what: str) -> None:
        if self._stacks.get(stack.spec.id) is stack and stack.users:
            log.error("a stack's process died", fim_stack=stack.spec.id, process=what)

    async def _unmount(self, stack: Stack) -> None:
        try:
            if stack.view is not None:
                await detach(os.path.join(stack.directory.path, "view"))
            await _unmount_overlay(stack.overlay)
            await asyncio.to_thread(_clean, stack.directory, stack.spec.data)
            log.info("stack unmounted", fim_stack=stack.spec.id)
        except (FimError, OSError) as error:
            log.error("stack could not be removed", fim_stack=stack.spec.id, reason=str(error))


async def _unmount_overlay(overlay: Overlay) -> None:
    if overlay.mount_point is not None:
        await detach(overlay.mount_point)
    else:
        await overlay.process.stop()


def _difference(held: StackSpec, wanted: StackSpec) -> str:
    if held.overlay != wanted.overlay:
        return f"the overlay {held.overlay} (not {wanted.overlay})"
    if held.casefold != wanted.casefold:
        return f"casefold {held.casefold} (not {wanted.casefold})"
    return "other layers"


def _prepare(directory: StackDirectory, data: DataDirectory, layers: list[Layer]) -> None:
    """Make the links that the backends mount by."""
    links = os.path.join(directory.path, "layers")
    os.makedirs(links, mode=0o700)
    for index, layer in enumerate(layers):
        os.symlink(layer.mount_point, os.path.join(links, str(index)))
    os.symlink(data.root, os.path.join(directory.path, "upper"))
    os.symlink(data.work(directory.id), os.path.join(directory.path, "work"))
    os.mkdir(directory.merged)


def _renew_work(directory: StackDirectory, data: DataDirectory) -> None:
    data.work(directory.id)


def _clean(directory: StackDirectory, data: DataDirectory) -> None:
    """Remove a stack's directories; its mounts have gone."""
    for point in ("view", "merged"):
        remove_directory(os.path.join(directory.path, point))
    shutil.rmtree(directory.path)
    remove_work(os.path.join(data.path, "work", directory.id))
