"""Layers' mounts, shared by all instances: each distinct layer once, with counted references.

The layers that one start is the first to need are mounted together, by as few processes as can work
at the same time. Each is counted for itself; a mount goes when none of its layers is used.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from fimd.base import records
from fimd.base.errors import FimError, MountError
from fimd.base.observe import Collection
from fimd.base.paths import RuntimeTree
from fimd.layers.engines import Engine
from fimd.layers.mounted import UNPACKED, Layer, LayerMount, LayerState
from fimd.layers.source import LayerSource
from fimd.mounts import descriptors, silent
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import is_held_up
from fimd.mounts.unmount import clear

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 16
"""Mounts that are being made or taken away at the same time: each takes some descriptors and a
process, and has its time limit to itself."""
_LAST_WORD: Final = 3.0
"""Seconds in which a mount that is about to be taken away has to answer."""
_KIND: Final = "layers"
_ID: Final = re.compile("[0-9a-f]{16}")
_LEAVING: Final = {LayerState.UNMOUNTING, LayerState.FAILED}


class Layers:
    """All mounted layers of this user."""

    def __init__(
        self,
        tree: RuntimeTree,
        namespace: Namespace,
        engine: Callable[[], Engine],
        linger: Callable[[], float],
        answer_in: float,
    ) -> None:
        self._tree = tree
        self._namespace = namespace
        self._engine = engine
        self._linger = linger
        self._answer_in = answer_in
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_failure: Callable[[Layer], None] = lambda _layer: None
        """Called when a layer's process has died under its users."""
        self.before_unmount: Callable[[], Awaitable[None]] = _at_once
        """Waited for before a mount is taken away."""
        self.mounted: Collection[Layer] = Collection()

    async def acquire(self, sources: Sequence[LayerSource]) -> list[Layer]:
        """Take a reference to each of these layers, all or none; mount those that nobody has yet.

        Those that were there and hang are mounted afresh. Raises BadLayerError or MountError.
        """
        while True:
            await self._until_gone(sources)
            begun = self._begin(sources)
            layers = [self._take(source) for source in sources]
            try:
                mounts = {layer.mount.id: layer.mount for layer in layers}
                if await self._all_mounted(mounts.values(), begun):
                    old = [layer for layer in layers if layer.mount not in begun]
                    if not await self.give_up_silent(old, self._answer_in):
                        return layers
            except BaseException:
                self.release(layers)
                raise
            self.release(layers)

    async def _until_gone(self, sources: Iterable[LayerSource]) -> None:
        """Wait until none of them is there still and on its way out."""
        while leaving := [
            layer
            for source in sources
            if (layer := self.mounted.get(source.id)) is not None and layer.state in _LEAVING
        ]:
            await leaving[0].mount.gone.wait()

    def _begin(self, sources: Iterable[LayerSource]) -> list[LayerMount]:
        """Begin to mount those of them that are not there."""
        missing = {source.id: source for source in sources if self._unknown(source.id)}
        begun: list[LayerMount] = []
        if not missing:
            return begun
        engine = self._engine()
        for part in engine.divide(list(missing.values())):
            first = part[0].id
            mount = LayerMount(first, str(self._tree.layers(first)), engine.name)
            for source in part:
                layer = Layer(source, mount, mount.place(source))
                mount.layers.append(layer)
                self.mounted.add(layer.id, layer)
            task = asyncio.create_task(self._mount(mount, engine), name=f"mount {mount.id}")
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            mount.mounted = task
            begun.append(mount)
        return begun

    def _unknown(self, layer_id: str) -> bool:
        return self.mounted.get(layer_id) is None

    def _take(self, source: LayerSource) -> Layer:
        layer = self.mounted.get(source.id)
        assert layer is not None
        layer.source = source  # the file may have been moved since it was mounted
        layer.references += 1
        if layer.mount.timer is not None:
            layer.mount.timer.cancel()
            layer.mount.timer = None
        if layer.state is LayerState.IDLE:
            layer.state = LayerState.MOUNTED
        self.mounted.changed(layer.id)
        return layer

    async def _all_mounted(self, mounts: Iterable[LayerMount], ours: list[LayerMount]) -> bool:
        """Wait for the mounts; tell whether they are there.

        What somebody else began may fail by a layer that only they want: it is no error here.
        Raises what went wrong with ours.
        """
        waiting = {mount.id: asyncio.shield(mount.mounted) for mount in mounts}
        outcomes = await asyncio.gather(*waiting.values(), return_exceptions=True)
        failed = {
            mount_id: outcome
            for mount_id, outcome in zip(waiting, outcomes, strict=True)
            if outcome is not None
        }
        for mount in ours:
            if mount.id in failed:
                raise failed[mount.id]
        return not failed

    async def give_up_silent(self, layers: Iterable[Layer], seconds: float) -> bool:
        """End the processes of those that do not answer in time; tell whether there was any.

        Their users get errors, and who comes next mounts them afresh.
        """
        asked = {
            layer.mount.mount_point: layer.mount
            for layer in layers
            if layer.process is not None and is_held_up(layer.process.pid)
        }
        found = [
            asked[point] for point in await silent.silent(self._namespace, list(asked), seconds)
        ]
        await asyncio.gather(*(self._end(mount) for mount in found))
        return bool(found)

    async def _end(self, mount: LayerMount) -> None:
        """End a mount's process by force; what follows is as if it had died by itself."""
        if mount.process is not None:
            await silent.end(self._namespace, mount.process, mount.mount_point)

    def release(self, layers: Iterable[Layer]) -> None:
        """Give a reference to each back. A mount goes when the linger is over and nobody came."""
        left: dict[str, LayerMount] = {}
        for layer in layers:
            layer.references -= 1
            assert layer.references >= 0
            if layer.references == 0 and layer.state is LayerState.MOUNTED:
                layer.state = LayerState.IDLE
                left[layer.mount.id] = layer.mount
            self.mounted.changed(layer.id)
        for mount in left.values():
            self._rest(mount)

    def _rest(self, mount: LayerMount) -> None:
        """Begin the linger of a mount that nobody uses."""
        if mount.idle and mount.timer is None:
            loop = asyncio.get_running_loop()
            mount.timer = loop.call_later(self._linger(), self._retire, [mount])

    async def _mount(self, mount: LayerMount, engine: Engine) -> None:
        try:
            with suppress(FileExistsError):  # and no look at what it is: it may not answer
                os.mkdir(mount.mount_point, 0o700)
            await self._namespace.hold()
            mount.holds_namespace = True
            async with self._turns:
                descriptors.check(len(mount.layers))
                sources = [layer.source for layer in mount.layers]
                mount.process = await engine.mount(sources, mount.mount_point)
            records.write(self._tree.record(_KIND, mount.id), mount.record())
        except BaseException as error:
            self._set(mount, LayerState.FAILED)
            try:
                if isinstance(error, FimError | OSError):
                    await self._clear(mount.id)  # it may be mounted, with its process dead
            finally:
                self._remove(mount)
            if isinstance(error, OSError):
                path = mount.layers[0].source.path
                raise MountError(f"layer {path}: {error.strerror}") from error
            raise
        mount.process.on_end(lambda: self._on_process_end(mount))
        for layer in mount.layers:
            log.info("layer mounted", fim_layer=layer.id, path=layer.source.path)
            # its user may have been cancelled meanwhile
            layer.state = LayerState.MOUNTED if layer.references else LayerState.IDLE
            self.mounted.changed(layer.id)
        self._rest(mount)

    def _set(self, mount: LayerMount, state: LayerState) -> None:
        for layer in mount.layers:
            layer.state = state
            self.mounted.changed(layer.id)

    def _remove(self, mount: LayerMount) -> None:
        for layer in mount.layers:
            self.mounted.remove(layer.id)
        if mount.holds_namespace:
            mount.holds_namespace = False
            self._namespace.release()
        mount.gone.set()

    def _on_process_end(self, mount: LayerMount) -> None:
        if mount.layers[0].state in _LEAVING:
            return
        if mount.timer is not None:
            mount.timer.cancel()
        self._set(mount, LayerState.FAILED)
        for layer in mount.layers:
            log.error("layer's process died", fim_layer=layer.id, path=layer.source.path)
        self._spawn(self._unmount(mount))
        for layer in mount.layers:
            self.on_failure(layer)

    def workers(self) -> list[int]:
        """Return the processes that are recorded as serving layers, and live."""
        found = []
        for mount_id in _recorded_ids(self._tree):
            facts = records.read(self._tree.record(_KIND, mount_id))
            mount = LayerMount.recorded(mount_id, "", facts)
            if mount is not None and mount.process is not None:
                found.append(mount.process.pid)
                mount.process.close()
        return found

    async def adopt(self) -> None:
        """Take over the mounts of a daemon that died, and remove what is no mount any more.

        Each layer is idle until `retain` or `acquire` takes a reference; `settle` lets the others
        go.
        """
        records.remove_unfinished(str(self._tree.records(_KIND)))
        found = set(await asyncio.to_thread(_recorded_ids, self._tree))
        found |= await asyncio.to_thread(self._tree.found, "layers", _ID)
        for mount_id in found:
            mount_point = str(self._tree.layers(mount_id))
            facts = await asyncio.to_thread(records.read, self._tree.record(_KIND, mount_id))
            mount = LayerMount.recorded(mount_id, mount_point, facts)
            if mount is None or mount.process is None or not self._is_there(mount):
                await self._forget(mount_id)
                continue
            await self._namespace.hold()
            mount.holds_namespace = True
            mount.process.on_end(partial(self._on_process_end, mount))
            for layer in mount.layers:
                self.mounted.add(layer.id, layer)
                log.info("layer adopted", fim_layer=layer.id, path=layer.source.path)

    def _is_there(self, mount: LayerMount) -> bool:
        """Whether a recorded mount is one, and none of its layers was found before."""
        unknown = all(self._unknown(layer.id) for layer in mount.layers)
        mounted = any(found.mount_point == mount.mount_point for found in self._namespace.mounts())
        return mounted and unknown

    async def _forget(self, mount_id: str) -> None:
        """Remove what is left of a mount; what can't be removed is no obstacle."""
        try:
            await self._clear(mount_id)
        except (FimError, OSError) as error:
            log.warning("a mount point is set aside", fim_layer=mount_id, reason=str(error))
            await asyncio.to_thread(self._tree.set_aside, self._tree.layers(mount_id))
            records.remove(self._tree.record(_KIND, mount_id))

    def has(self, mount_id: str) -> bool:
        """Whether this is a mount that is there, or is being made."""
        return any(mount.id == mount_id for mount in self._mounts())

    def retain(self, layer_id: str) -> Layer | None:
        """Take a reference to an adopted layer for an adopted instance; None where it is gone."""
        layer = self.mounted.get(layer_id)
        if layer is not None:
            layer.references += 1
            layer.state = LayerState.MOUNTED
        return layer

    def settle(self) -> None:
        """Begin the linger of what was adopted and nobody retained."""
        for mount in self._mounts():
            self._rest(mount)

    def _mounts(self) -> list[LayerMount]:
        return list({layer.mount.id: layer.mount for layer in self.mounted}.values())

    def _retire(self, mounts: Sequence[LayerMount]) -> None:
        for mount in mounts:
            mount.timer = None
            self._set(mount, LayerState.UNMOUNTING)
        self._spawn(self._unmount_all(mounts))

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unmount_all(self, mounts: Sequence[LayerMount]) -> None:
        layers = [mount.layers[0] for mount in mounts]
        await self.give_up_silent(layers, _LAST_WORD)  # detached, it would hang for ever
        await asyncio.gather(*(self._unmount(mount) for mount in mounts))

    async def _unmount(self, mount: LayerMount) -> None:
        try:
            await self.before_unmount()
            async with self._turns:
                await self._clear(mount.id)
            if mount.engine == UNPACKED and mount.process is not None:
                await mount.process.wait(_LAST_WORD)  # until then it uses what it showed
            for layer in mount.layers:
                log.info("layer unmounted", fim_layer=layer.id)
        except (FimError, OSError) as error:
            log.error("layers could not be unmounted", fim_layer=mount.id, reason=str(error))
        finally:
            self._remove(mount)

    async def _clear(self, mount_id: str) -> None:
        await clear(self._namespace, str(self._tree.layers(mount_id)))
        records.remove(self._tree.record(_KIND, mount_id))

    async def retire_idle(self) -> int:
        """Unmount now what nobody uses, and wait until it is done; return how many layers."""
        idle = [mount for mount in self._mounts() if mount.idle]
        for mount in idle:
            if mount.timer is not None:
                mount.timer.cancel()
        self._retire(idle)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return sum(len(mount.layers) for mount in idle)


async def _at_once() -> None:
    pass


def _recorded_ids(tree: RuntimeTree) -> list[str]:
    """Return the mounts that there are records of."""
    names = (name.removesuffix(".json") for name in os.listdir(tree.records(_KIND)))
    return [name for name in names if _ID.fullmatch(name)]
