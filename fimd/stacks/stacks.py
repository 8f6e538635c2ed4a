"""Writable stacks: one overlay (and view) per data directory, shared by all of its instances."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

import structlog

from fimd.base import records
from fimd.base.errors import (
    FimError,
    MountError,
    UnsupportedError,
)
from fimd.base.paths import RuntimeTree
from fimd.casefold.mount import View
from fimd.layers.mounted import UNPACKED, Layer
from fimd.mounts import silent
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process, is_held_up
from fimd.mounts.steps import Errand, Step
from fimd.mounts.unmount import clear
from fimd.overlays import KNOWN
from fimd.overlays.fallback import stand_ins
from fimd.overlays.stack import Overlay, StackDirectory
from fimd.stacks.data import DataDirectory
from fimd.stacks.prepare import discard, prepared, preparing
from fimd.stacks.stack import KIND, Stack, StackSpec, record, recorded
from fimd.stacks.waiting import Turns

log = structlog.get_logger(__name__)

_ID: Final = re.compile("[0-9a-f]{16}")
_ENDING: Final = 1.0
_GLANCE: Final = 0.02
"""Seconds that one who has ended may take to be released, and between two looks at that."""
_LAST_WORD: Final = 3.0
"""Seconds in which a stack that is about to be unmounted has to answer."""


class OutdatedError(FimError):
    """The layers of a data directory were read before something changed them."""


class Stacks:
    """All writable stacks of this user."""

    def __init__(
        self,
        tree: RuntimeTree,
        namespace: Namespace,
        view: View,
        seconds: float,
    ) -> None:
        self._tree = tree
        self._namespace = namespace
        self._view = view
        self._seconds = seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stacks: dict[str, Stack] = {}
        self._reserved: dict[str, str] = {}
        self._turns = Turns()
        self._tasks: set[asyncio.Task[None]] = set()
        self.changes = 0
        """How often something that changes a data directory was done with it."""
        self.on_failure: Callable[[Stack], None] = lambda _stack: None
        """Called when a process of a stack has died under its users."""
        self.name_user: Callable[[int], str] = str
        """Called to tell of a user of a stack, by its PID."""
        self.former_users: Callable[..., str] = lambda _stack_id: ""
        """Called to tell who uses a stack that an earlier fimd has mounted on the host."""
        self.before_unmount: Callable[[], Awaitable[None]] = _at_once
        """Waited for before a mount is taken away."""

    async def acquire(
        self,
        spec: StackSpec,
        layers: list[Layer],
        pid: int,
        changes: int,
        errand: Errand | None = None,
    ) -> Stack:
        """Let the process use a stack, which is mounted where it isn't yet.

        `changes` is what it was before the layers were read; `errand` wants the stack's tree for
        its argument `root`, and is done where that takes no process of its own.

        Raises OutdatedError where the changes are others now; InUseError, with the PIDs, where
        others use the data directory with other layers or another overlay; MountError or
        UnsupportedError where it can't be mounted.
        """
        present = self._stacks.get(spec.id)
        if present is not None and present.spec != spec:
            await self._until_released(spec.data)
        async with self._lock(spec.id):
            self._check_free(spec.data)
            if self.changes != changes:
                raise OutdatedError(f"{spec.data.path} was changed meanwhile: try again")
            existing = stack = self._stacks.get(spec.id)
            if stack is None:
                stack = await self._mount(spec, layers, errand)
                self._stacks[spec.id] = stack
            users = self._told(stack.users)
            if stack.failed:
                raise self._turns.refuse(
                    spec.id,
                    f"{spec.data.path} is in use by process {users}, whose filesystem died: end "
                    f"that first",
                )
            if stack.spec != spec:
                raise self._turns.refuse(
                    spec.id,
                    f"{spec.data.path} is in use with {_difference(stack.spec, spec)} by process "
                    f"{users}: end that first, or set FIM_DIR_DATA to another directory",
                )
            if existing and await self.give_up_silent(stack, self._seconds):
                raise MountError(
                    f"the filesystem of {spec.data.path} did not answer within {self._seconds:g} s "
                    f"and was given up: end process {users}, and try again"
                )
            stack.users.add(pid)
            return stack

    async def give_up_silent(self, stack: Stack, seconds: float) -> bool:
        """End what of a stack does not answer in time; tell whether there was any."""
        mounts = {
            point: process for point, process in stack.mounts.items() if is_held_up(process.pid)
        }
        found = await silent.silent(self._namespace, list(mounts), seconds)
        await asyncio.gather(
            *(silent.end(self._namespace, mounts[point], point) for point in found)
        )
        return bool(found)

    async def release(self, stack: Stack, pid: int) -> None:
        """Give a stack back; with its last user it is unmounted."""
        async with self._lock(stack.spec.id):
            stack.users.discard(pid)
            if not stack.users and self._stacks.get(stack.spec.id) is stack:
                del self._stacks[stack.spec.id]
                try:
                    await self._unmount(stack)
                finally:
                    self._turns.free(stack.spec.id)

    @asynccontextmanager
    async def reserve(self, data: DataDirectory, purpose: str) -> AsyncIterator[None]:
        """Keep a data directory for something that changes it, and its stack unmounted.

        Raises InUseError, with the PIDs of those who use it, or the purpose that it is kept for.
        """
        stack_id = StackSpec(data, (), "", "").id
        await self._until_released(data)
        async with self._lock(stack_id):
            users = self._told(self.users(data))
            if users:
                raise self._turns.refuse(
                    stack_id, f"{data.path} is in use by process {users}: end that first"
                )
            self._check_free(data)
            self._reserved[data.path] = purpose
        try:
            yield
        finally:
            del self._reserved[data.path]
            self.changes += 1
            self._turns.free(stack_id)

    async def _until_released(self, data: DataDirectory) -> None:
        """Wait a moment for users whose processes have ended: what they left may be ending too."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ENDING
        while (users := self.users(data)) and loop.time() < deadline:
            if any(map(_lives, users)):
                return
            await asyncio.sleep(_GLANCE)

    def _check_free(self, data: DataDirectory) -> None:
        stack_id = StackSpec(data, (), "", "").id
        former = self.former_users(stack_id)
        if former:
            raise self._turns.refuse(
                stack_id,
                f"{data.path} is in use by process {former}, started by an earlier fimd: end that "
                f"first",
            )
        if data.path in self._reserved:
            raise self._turns.refuse(
                stack_id,
                f"{self._reserved[data.path]} of {data.path} is going on: try again once it is "
                f"done",
            )

    def _told(self, users: Collection[int]) -> str:
        return ", ".join(map(self.name_user, sorted(users)))

    def users(self, data: DataDirectory) -> set[int]:
        """Return the PIDs that use a data directory now."""
        stack = self._stacks.get(StackSpec(data, (), "", "").id)
        return set(stack.users) if stack else set()

    def _lock(self, stack_id: str) -> asyncio.Lock:
        return self._locks.setdefault(stack_id, asyncio.Lock())

    async def _mount(self, spec: StackSpec, layers: list[Layer], errand: Errand | None) -> Stack:
        layers = _topmost_of_each(layers)
        sources = tuple(layer.source for layer in layers)
        directory = StackDirectory(
            spec.id,
            str(self._tree.stack(spec.id)),
            len(sources),
            (spec.data.device, spec.data.inode),
            sources,
            is_unpacked=any(layer.engine == UNPACKED for layer in layers),
        )
        await self._namespace.hold()
        try:
            await asyncio.to_thread(_prepare, directory, spec.data, layers)
            errand = errand if spec.casefold == "off" else None  # its tree is the overlay's
            overlay, name, warnings = await self._mount_overlay(directory, spec, errand)
            try:
                view = await self._mount_view(directory, spec, overlay)
            except BaseException:
                await self._namespace.unmount(overlay.root)
                raise
        except BaseException as error:
            try:
                await asyncio.shield(self._discard(spec.id, spec.data))
            finally:
                self._namespace.release()
            if isinstance(error, OSError):
                raise MountError(f"the overlay of {spec.data.path}: {error}: try again") from error
            raise
        stack = Stack(spec, directory, overlay, name, view, warnings)
        try:
            records.write(self._tree.record(KIND, spec.id), record(stack))
        except BaseException:
            await self._unmount(stack)
            raise
        log.info("stack mounted", fim_stack=spec.id, data=spec.data.path, overlay=name)
        self._watch(stack)
        return stack

    def _watch(self, stack: Stack) -> None:
        if stack.overlay.process is not None:
            stack.overlay.process.on_end(lambda: self.fail(stack, "the overlay"))
        if stack.view is not None:
            stack.view.on_end(lambda: self.fail(stack, "the view"))

    async def _mount_overlay(
        self, directory: StackDirectory, spec: StackSpec, errand: Errand | None
    ) -> tuple[Overlay, str, tuple[str, ...]]:
        name, *others = spec.overlay, *stand_ins(spec.overlay)
        notes: list[str] = []
        refusals: list[str] = []
        while True:
            try:
                overlay = await self._mount_backend(name, directory, spec, notes, errand)
            except (MountError, UnsupportedError) as error:
                refusals.append(f"the overlay {name} was refused ({error})")
                if not others:
                    raise MountError("; ".join(refusals)) from error
                await asyncio.to_thread(_renew, directory)
                name = others.pop(0)
                continue
            if not refusals:
                return overlay, name, tuple(notes)
            reason = f"{'; '.join(refusals)}; using {name}"
            log.warning("overlay fell back", fim_stack=spec.id, reason=reason)
            return overlay, name, (*notes, reason)

    async def _mount_backend(
        self,
        name: str,
        directory: StackDirectory,
        spec: StackSpec,
        notes: list[str],
        errand: Errand | None,
    ) -> Overlay:
        """Mount by one backend, over an upper in the form that it reads; add to `notes`."""
        backend = KNOWN[name]
        with ExitStack() as held:

            def steps() -> tuple[Step, Step]:
                ready = held.enter_context(
                    preparing(*(spec.data, directory, name), casefold=spec.casefold != "off")
                )
                return ready, backend.begin(directory, self._seconds)

            said, begun = await self._namespace.call(
                *await asyncio.to_thread(steps),
                serves=("fim_stack", spec.id),
                errand=errand if backend.serve is None else None,
            )
        ready = prepared(said)
        for note in ready.notes:
            log.warning("data directory cleaned up", fim_stack=spec.id, note=note)
        notes += [said for said in ready.notes if said not in notes]
        place = replace(directory, work=ready.work, ghosts=ready.ghosts)
        return await backend.follow(place, begun, self._namespace, self._seconds)

    async def _mount_view(
        self, directory: StackDirectory, spec: StackSpec, overlay: Overlay
    ) -> Process | None:
        if spec.casefold == "off" and not overlay.branches:
            return None
        point = os.path.join(directory.path, "view")
        os.mkdir(point)
        naming = "exact" if spec.casefold == "off" else spec.casefold
        return await self._view(spec.id, overlay.root, point, naming, overlay.branches)

    def fail(self, stack: Stack, what: str) -> None:
        """Take note that something under a stack's users has died, and detach it."""
        if self._stacks.get(stack.spec.id) is not stack or stack.failed:
            return
        stack.failed = True
        log.error("a stack died under its users", fim_stack=stack.spec.id, process=what)
        self.on_failure(stack)
        task = asyncio.create_task(self._detach(stack))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail_layer(self, layer_id: str) -> None:
        """Take note that a layer has died under the stacks that have it."""
        for stack in list(self._stacks.values()):
            if layer_id in stack.spec.layers:
                self.fail(stack, f"layer {layer_id}")

    async def _detach(self, stack: Stack) -> None:
        try:
            await self.give_up_silent(stack, _LAST_WORD)
            await self.before_unmount()
            for point in (stack.root, stack.overlay.root):
                if self._namespace.below(point):
                    await self._namespace.unmount(point)
        except FimError as error:
            log.error("stack could not be detached", fim_stack=stack.spec.id, reason=str(error))

    async def adopt(self, users: Mapping[str, Collection[int]]) -> dict[str, Stack]:
        """Take over the stacks that living processes use, and remove the others.

        `users` are their PIDs by the stack's identifier; returns the stacks by the same. What has
        died of a stack since it was recorded is answered as if it died now.
        """
        records.remove_unfinished(str(self._tree.records(KIND)))
        found = await asyncio.to_thread(self._tree.found, "stacks", _ID)
        mounted = {mount.mount_point for mount in self._namespace.mounts()}
        for stack_id in found:
            directory = str(self._tree.stack(stack_id))
            facts = await asyncio.to_thread(records.read, self._tree.record(KIND, stack_id))
            stack = recorded(stack_id, directory, facts) if stack_id in users else None
            if stack is None:
                if not self.former_users(stack_id):
                    await self._discard(stack_id)
                continue
            stack.users.update(users[stack_id])
            stack.holds_namespace = self._namespace.exists
            if stack.holds_namespace:
                await self._namespace.hold()
            self._stacks[stack_id] = stack
            self._watch(stack)
            log.info("stack adopted", fim_stack=stack_id, data=stack.spec.data.path)
            if stack.root not in mounted:
                self.fail(stack, "its mount")
        return dict(self._stacks)

    async def forget(self, stack_id: str) -> None:
        """Remove the directory of a stack that an earlier fimd had."""
        await self._discard(stack_id)

    def free(self, stack_id: str) -> None:
        """Tell who waits for a stack that an earlier fimd had that nobody has it any more."""
        self._turns.free(stack_id)

    async def _unmount(self, stack: Stack) -> None:
        try:
            await self._detach(stack)
            await self._discard(stack.spec.id, stack.spec.data)
            log.info("stack unmounted", fim_stack=stack.spec.id)
        except (FimError, OSError) as error:
            log.error("stack could not be removed", fim_stack=stack.spec.id, reason=str(error))
        finally:
            if stack.holds_namespace:
                stack.holds_namespace = False
                self._namespace.release()

    async def _discard(self, stack_id: str, data: DataDirectory | None = None) -> None:
        """Remove a stack's directory, what is still mounted in it, and its overlay's in `data`.

        What can't be removed is set aside: it is no obstacle to the next start.
        """
        path = self._tree.stack(stack_id)
        try:
            for mount in reversed(self._namespace.below(str(path))):
                await self._namespace.unmount(mount.mount_point)
            for point in ("view", "merged"):
                await clear(self._namespace, str(path / point))
            await asyncio.to_thread(_remove, str(path))
        except (FimError, OSError) as error:
            log.warning("a stack is set aside", fim_stack=stack_id, reason=str(error))
            await asyncio.to_thread(self._tree.set_aside, path)
        records.remove(self._tree.record(KIND, stack_id))
        if data is not None:
            try:
                await discard(self._namespace, data, stack_id)
            except FimError as error:  # the next start makes a fresh one
                log.info("a work directory stays", fim_stack=stack_id, reason=str(error))


def _lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def _at_once() -> None:
    pass


def _difference(held: StackSpec, wanted: StackSpec) -> str:
    if held.overlay != wanted.overlay:
        return f"the overlay {held.overlay} (not {wanted.overlay})"
    if held.casefold != wanted.casefold:
        return f"casefold {held.casefold} (not {wanted.casefold})"
    return "other layers"


def _topmost_of_each(layers: list[Layer]) -> list[Layer]:
    """Leave out a layer that is there again further up, where it hides all of the lower one.

    The kernel's overlay takes none twice.
    """
    topmost = {layer.id: layer for layer in reversed(layers)}
    return list(topmost.values())[::-1]


def _remove(directory: str) -> None:
    """Remove the directory of a stack."""
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)


def _prepare(directory: StackDirectory, data: DataDirectory, layers: list[Layer]) -> None:
    """Make the links that the backends mount by. Raises OSError."""
    os.makedirs(directory.links, mode=0o700)
    for index, layer in enumerate(layers):
        # a path of up to 59 bytes takes no block of its own on most file systems
        target = os.path.relpath(layer.mount_point, directory.links)
        os.symlink(target, os.path.join(directory.links, str(index)))
    os.symlink(data.root, os.path.join(directory.path, "upper"))
    os.symlink(data.work(directory.id), os.path.join(directory.path, "work"))
    os.mkdir(directory.merged)


def _renew(directory: StackDirectory) -> None:
    """Remove what a backend that could not mount has made for itself."""
    with suppress(FileNotFoundError):
        shutil.rmtree(os.path.join(directory.path, "marks"))
