"""Writable stacks: one overlay (and view) per data directory, shared by all of its instances."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import structlog

from fimd import records
from fimd.casefold.mount import View
from fimd.dwarfs.errors import DwarfsError
from fimd.errors import (
    DataDirectoryError,
    FimError,
    MountError,
    ProcessGoneError,
    UnsupportedError,
)
from fimd.instances.data import DataDirectory, remove_work
from fimd.instances.fallback import stand_ins
from fimd.instances.waiting import Turns
from fimd.layers.mounted import Layer
from fimd.layers.recovery import clean_up
from fimd.mounts import silent
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process, is_held_up
from fimd.mounts.table import MountTable
from fimd.mounts.unmount import clear, detach
from fimd.overlays import BACKENDS, kernel
from fimd.overlays.adapt import adapt
from fimd.overlays.stack import Overlay, StackDirectory
from fimd.paths import RuntimeTree

log = structlog.get_logger(__name__)

CASEFOLD_MODES: Final = ("off", "on", "preserve")
_LAST_WORD: Final = 3.0
"""Seconds in which a stack that is about to be unmounted has to answer."""


class OutdatedError(FimError):
    """The layers of a data directory were read before something changed them."""


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
    failed: bool = False
    """Whether one of its processes died under its users."""

    @property
    def root(self) -> str:
        """The tree that an instance sees as /."""
        return self._view_point if self.view is not None else self.overlay.root

    @property
    def mounts(self) -> dict[str, Process]:
        """The mount points that everybody sees, and the processes that serve them."""
        mounts = {self.overlay.mount_point: self.overlay.process}
        if self.view is not None:
            mounts[self._view_point] = self.view
        return {point: process for point, process in mounts.items() if point is not None}

    @property
    def _view_point(self) -> str:
        return os.path.join(self.directory.path, "view")


class Stacks:
    """All writable stacks of this user."""

    def __init__(
        self,
        tree: RuntimeTree,
        table: MountTable,
        outputs: Outputs,
        view: View,
        seconds: float,
    ) -> None:
        self._tree = tree
        self._table = table
        self._outputs = outputs
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
        self.before_unmount: Callable[[], Awaitable[None]] = _at_once
        """Waited for before a mount is taken away."""

    async def acquire(self, spec: StackSpec, layers: list[Layer], pid: int, changes: int) -> Stack:
        """Let the process use a stack, which is mounted where it isn't yet.

        `changes` is what it was before the layers were read. Raises OutdatedError where it is
        another now; InUseError, with the PIDs, where others use the data directory with other
        layers or another overlay; MountError or UnsupportedError where it can't be mounted.
        """
        async with self._lock(spec.id):
            self._check_reserved(spec.data)
            if self.changes != changes:
                raise OutdatedError(f"{spec.data.path} was changed meanwhile: try again")
            existing = stack = self._stacks.get(spec.id)
            if stack is None:
                stack = await self._mount(spec, layers)
                self._stacks[spec.id] = stack
            users = ", ".join(map(str, sorted(stack.users)))
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
        found = await silent.silent(list(mounts), seconds)
        await asyncio.gather(*(silent.end(mounts[point], point) for point in found))
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
            elif stack.users and stack.overlay.process.pid == pid:
                self._change_holder(stack)

    @asynccontextmanager
    async def reserve(self, data: DataDirectory, purpose: str) -> AsyncIterator[None]:
        """Keep a data directory for something that changes it, and its stack unmounted.

        Raises InUseError, with the PIDs of those who use it, or the purpose that it is kept for.
        """
        stack_id = StackSpec(data, (), "", "").id
        async with self._lock(stack_id):
            users = ", ".join(map(str, sorted(self.users(data))))
            if users:
                raise self._turns.refuse(
                    stack_id, f"{data.path} is in use by process {users}: end that first"
                )
            self._check_reserved(data)
            self._reserved[data.path] = purpose
        try:
            yield
        finally:
            del self._reserved[data.path]
            self.changes += 1
            self._turns.free(stack_id)

    def _check_reserved(self, data: DataDirectory) -> None:
        if data.path in self._reserved:
            raise self._turns.refuse(
                StackSpec(data, (), "", "").id,
                f"{self._reserved[data.path]} of {data.path} is going on: try again once it is "
                f"done",
            )

    def users(self, data: DataDirectory) -> set[int]:
        """Return the PIDs that use a data directory now."""
        stack = self._stacks.get(StackSpec(data, (), "", "").id)
        return set(stack.users) if stack else set()

    def _lock(self, stack_id: str) -> asyncio.Lock:
        return self._locks.setdefault(stack_id, asyncio.Lock())

    async def _mount(self, spec: StackSpec, layers: list[Layer]) -> Stack:
        layers = _topmost_of_each(layers)
        sources = tuple(layer.source for layer in layers)
        directory = StackDirectory(spec.id, str(self._tree.stack(spec.id)), len(sources), sources)
        notes = await asyncio.to_thread(clean_up, spec.data.path)
        for note in notes:
            log.warning("data directory cleaned up", fim_stack=spec.id, note=note)
        try:
            await asyncio.to_thread(_prepare, directory, spec.data, layers)
            overlay, name, warnings = await self._mount_overlay(directory, spec)
            try:
                view = await self._mount_view(directory, spec, overlay, name)
            except BaseException:
                await _unmount_overlay(overlay)
                raise
        except BaseException as error:
            await asyncio.shield(_discard(directory.path))
            if isinstance(error, OSError):
                raise MountError(f"the overlay of {spec.data.path}: {error}: try again") from error
            raise
        stack = Stack(spec, directory, overlay, name, view, (*notes, *warnings))
        try:
            _record(stack)
        except BaseException:
            await self._unmount(stack)
            raise
        log.info("stack mounted", fim_stack=spec.id, data=spec.data.path, overlay=name)
        self._watch(stack)
        return stack

    def _watch(self, stack: Stack) -> None:
        stack.overlay.process.on_end(lambda: self._on_overlay_end(stack))
        if stack.view is not None:
            stack.view.on_end(lambda: self.fail(stack, "the case-insensitive view"))

    async def _mount_overlay(
        self, directory: StackDirectory, spec: StackSpec
    ) -> tuple[Overlay, str, tuple[str, ...]]:
        name, *others = spec.overlay, *stand_ins(spec.overlay)
        refusals: list[str] = []
        while True:
            try:
                overlay = await self._mount_backend(name, directory, spec)
            except (MountError, UnsupportedError) as error:
                refusals.append(f"the overlay {name} was refused ({error})")
                if not others:
                    raise MountError("; ".join(refusals)) from error
                await asyncio.to_thread(_renew, directory, spec.data)
                name = others.pop(0)
                continue
            if not refusals:
                return overlay, name, ()
            reason = f"{'; '.join(refusals)}; using {name}"
            log.warning("overlay fell back", fim_stack=spec.id, reason=reason)
            return overlay, name, (reason,)

    async def _mount_backend(
        self, name: str, directory: StackDirectory, spec: StackSpec
    ) -> Overlay:
        """Mount by one backend, over an upper in the form that it reads."""
        backend = BACKENDS[name]
        try:
            await asyncio.to_thread(
                adapt,
                spec.data.path,
                directory.sources,
                name,
                backend.marks(),
                spec.id,
            )
        except (DwarfsError, OSError) as error:
            raise DataDirectoryError(
                f"the changes in {spec.data.root} can't be brought to the form of the overlay "
                f"{name}: {error}"
            ) from error
        return await backend.mount(directory, self._table, self._outputs, self._seconds)

    async def _mount_view(
        self, directory: StackDirectory, spec: StackSpec, overlay: Overlay, name: str
    ) -> Process | None:
        if spec.casefold == "off":
            return None
        point = os.path.join(directory.path, "view")
        os.mkdir(point)
        branches = directory.branches if BACKENDS[name].parts_directories else []
        return await self._view(spec.id, overlay.root, point, spec.casefold == "preserve", branches)

    def _on_overlay_end(self, stack: Stack) -> None:
        if stack.overlay.mount_point is None and stack.users:
            self._change_holder(stack)
        else:
            self.fail(stack, "the overlay")

    def _change_holder(self, stack: Stack) -> None:
        """Let a user hold the kernel overlay's namespaces, which it has joined, for the others."""
        if self._stacks.get(stack.spec.id) is not stack or stack.overlay.mount_point is not None:
            return
        for pid in sorted(stack.users):
            try:
                holder = Process.watch(pid)
            except ProcessGoneError:
                continue
            log.warning("overlay's holder died", fim_stack=stack.spec.id, successor=pid)
            stack.overlay = kernel.held_by(holder, stack.overlay.root, owned=False)
            holder.on_end(lambda: self._on_overlay_end(stack))
            _record(stack)
            return

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
            if stack.view is not None:
                await detach(os.path.join(stack.directory.path, "view"))
            await _unmount_overlay(stack.overlay)
        except FimError as error:
            log.error("stack could not be detached", fim_stack=stack.spec.id, reason=str(error))

    async def adopt(self, users: Mapping[str, Collection[int]]) -> dict[str, Stack]:
        """Take over the stacks that living processes use, and remove the others.

        `users` are their PIDs by the stack's identifier; returns the stacks by the same. What has
        died of a stack since it was recorded is answered as if it died now.
        """
        for stack_id in os.listdir(self._tree.root / "stacks"):
            directory = str(self._tree.stack(stack_id))
            stack = _recorded(directory) if stack_id in users else None
            if stack is not None:
                stack.users.update(users[stack_id])
                self._stacks[stack_id] = stack
                self._watch(stack)
                log.info("stack adopted", fim_stack=stack_id, data=stack.spec.data.path)
                continue
            for pid in await asyncio.to_thread(_working_in, directory):
                with suppress(ProcessGoneError):
                    await Process.watch(pid).stop()
            await _discard(directory)
        return dict(self._stacks)

    async def _unmount(self, stack: Stack) -> None:
        try:
            await self._detach(stack)
            await _discard(stack.directory.path)
            log.info("stack unmounted", fim_stack=stack.spec.id)
        except (FimError, OSError) as error:
            log.error("stack could not be removed", fim_stack=stack.spec.id, reason=str(error))


async def _at_once() -> None:
    pass


async def _unmount_overlay(overlay: Overlay) -> None:
    if overlay.mount_point is not None:
        await detach(overlay.mount_point)
    elif overlay.owned:
        await overlay.process.stop()


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


def _record_path(directory: str) -> str:
    return os.path.join(directory, "stack.json")


def _identify(process: Process) -> list[int]:
    return [process.pid, process.started]


def _identified(pid: int, started: int) -> Process:
    return Process.known(pid, started) or Process(pid, None)


def _record(stack: Stack) -> None:
    """Write down what a later daemon needs to take the stack over."""
    facts = {
        "spec": asdict(stack.spec),
        "overlay": stack.overlay_name,
        "overlay_process": _identify(stack.overlay.process),
        "overlay_root": stack.overlay.root,
        "mount_point": stack.overlay.mount_point,
        "owned": stack.overlay.owned,
        "view_process": _identify(stack.view) if stack.view is not None else None,
    }
    records.write(_record_path(stack.directory.path), facts)


def _recorded(directory: str) -> Stack | None:
    """Return the stack that a record describes, None where there is none that makes sense."""
    facts = records.read(_record_path(directory))
    try:
        if facts is None:
            return None
        written = facts["spec"]
        data = DataDirectory(**written["data"])
        spec = StackSpec(data, tuple(written["layers"]), written["overlay"], written["casefold"])
        process = _identified(*facts["overlay_process"])
        view = _identified(*facts["view_process"]) if facts["view_process"] else None
        overlay = Overlay(process, facts["overlay_root"], (), facts["mount_point"])
        if overlay.mount_point is None:
            overlay = kernel.held_by(process, overlay.root, owned=facts["owned"])
        place = StackDirectory(spec.id, directory, len(set(spec.layers)))
        return Stack(spec, place, overlay, facts["overlay"], view, ())
    except (KeyError, TypeError):
        return None


def _working_in(directory: str) -> list[int]:
    """Return the processes whose working directory is below one: a stack's, by how it starts."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.readlink(f"/proc/{name}/cwd").startswith(directory + "/"):
                    found.append(int(name))
    return found


async def _discard(directory: str) -> None:
    """Remove a stack's directory, and what is still mounted in it."""
    for point in ("view", "merged"):
        await clear(os.path.join(directory, point))
    await asyncio.to_thread(_remove, directory)


def _remove(directory: str) -> None:
    """Remove the directory of a stack, and what its overlay left in the data directory."""
    with suppress(OSError):
        remove_work(os.readlink(os.path.join(directory, "work")))
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


def _renew(directory: StackDirectory, data: DataDirectory) -> None:
    """Remove what a backend that could not mount has made for itself."""
    data.work(directory.id)
    with suppress(FileNotFoundError):
        shutil.rmtree(os.path.join(directory.path, "marks"))
