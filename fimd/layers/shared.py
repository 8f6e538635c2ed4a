"""Layers' mounts, shared by all instances: one mount per distinct layer, counted references."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from fimd import records
from fimd.errors import FimError, MountError
from fimd.layers.engines import Engine
from fimd.layers.source import LayerSource
from fimd.mounts import descriptors, silent
from fimd.mounts.process import Process, is_held_up
from fimd.mounts.unmount import clear
from fimd.observe import Collection
from fimd.paths import RuntimeTree

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 16
"""Layers that are being mounted or unmounted at the same time: each takes some descriptors and a
process, and has its time limit to itself."""
_LAST_WORD: Final = 3.0
"""Seconds in which a layer that is about to be unmounted has to answer."""


class LayerState(StrEnum):
    """Where a layer's mount is in its life."""

    MOUNTING = "mounting"
    MOUNTED = "mounted"
    IDLE = "idle"  # mounted, used by nobody, for the linger
    UNMOUNTING = "unmounting"
    FAILED = "failed"  # its process died under its users


class Layer:
    """One layer's mount. Its owner is Layers; others look."""

    def __init__(self, source: LayerSource, mount_point: str, engine: str) -> None:
        self.source = source
        self.mount_point = mount_point
        self.engine = engine
        self.state = LayerState.MOUNTING
        self.references = 0
        self.process: Process | None = None
        self.mounted: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()

    @property
    def id(self) -> str:
        """The layer's identifier."""
        return self.source.id


class Layers:
    """All mounted layers of this user."""

    def __init__(
        self,
        tree: RuntimeTree,
        engine: tuple[str, Engine],
        linger: Callable[[], float],
        answer_in: float,
    ) -> None:
        self._tree = tree
        self._engine_name, self._mount = engine
        self._linger = linger
        self._answer_in = answer_in
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_failure: Callable[[Layer], None] = lambda _layer: None
        """Called when a layer's process has died under its users."""
        self.before_unmount: Callable[[], Awaitable[None]] = _at_once
        """Waited for before a mount is taken away."""
        self.mounted: Collection[Layer] = Collection()

    async def acquire(self, source: LayerSource) -> Layer:
        """Take a reference to a layer, mounting it where nobody has yet.

        Raises BadLayerError or MountError; then nothing was taken.
        """
        while True:
            layer = self.mounted.get(source.id)
            if layer is None:
                layer = self._begin(source)
            if layer.state not in {LayerState.UNMOUNTING, LayerState.FAILED}:
                break
            await layer.gone.wait()
        layer.source = source  # the file may have been moved since it was mounted
        layer.references += 1
        if layer.timer is not None:
            layer.timer.cancel()
            layer.timer = None
        if layer.state is LayerState.IDLE:
            layer.state = LayerState.MOUNTED
        self.mounted.changed(layer.id)
        assert layer.mounted is not None
        try:
            await asyncio.shield(layer.mounted)
        except BaseException:
            self.release(layer)
            raise
        return layer

    async def acquire_all(self, sources: Sequence[LayerSource]) -> list[Layer]:
        """Take a reference to each of these layers, of which none hangs; all or none.

        Raises what `acquire` raises.
        """
        there = {source.id for source in sources if self.mounted.get(source.id) is not None}
        layers = await self._acquire_each(sources)
        try:
            old = [layer for layer in layers if layer.id in there]
            if not await self.give_up_silent(old, self._answer_in):
                return layers
        except BaseException:
            self.release_all(layers)
            raise
        self.release_all(layers)
        return await self.acquire_all(sources)  # those that were given up are mounted afresh

    async def _acquire_each(self, sources: Sequence[LayerSource]) -> list[Layer]:
        tasks = [asyncio.create_task(self.acquire(source)) for source in sources]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self.release_all(outcome for outcome in outcomes if isinstance(outcome, Layer))
            raise

    async def give_up_silent(self, layers: Iterable[Layer], seconds: float) -> bool:
        """End the processes of those that do not answer in time; tell whether there was any.

        Their users get errors, and who comes next mounts them afresh.
        """
        asked = {
            layer.mount_point: layer
            for layer in layers
            if layer.process is not None and is_held_up(layer.process.pid)
        }
        found = [asked[point] for point in await silent.silent(list(asked), seconds)]
        await asyncio.gather(*(_end(layer) for layer in found))
        return bool(found)

    def release_all(self, layers: Iterable[Layer]) -> None:
        """Give a reference to each back."""
        for layer in layers:
            self.release(layer)

    def release(self, layer: Layer) -> None:
        """Give a reference back. The mount goes when the linger is over and nobody came."""
        layer.references -= 1
        assert layer.references >= 0
        if layer.references == 0 and layer.state is LayerState.MOUNTED:
            layer.state = LayerState.IDLE
            self._retire_after(layer, self._linger())
        self.mounted.changed(layer.id)

    def _begin(self, source: LayerSource) -> Layer:
        layer = Layer(source, str(self._tree.layer(source.id)), self._engine_name)
        self.mounted.add(layer.id, layer)
        task = asyncio.create_task(self._mount_layer(layer), name=f"mount {layer.id}")
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        layer.mounted = task
        return layer

    async def _mount_layer(self, layer: Layer) -> None:
        try:
            with suppress(FileExistsError):  # and no look at what it is: it may not answer
                os.mkdir(layer.mount_point, 0o700)
            async with self._turns:
                descriptors.check()
                layer.process = await self._mount(layer.source, layer.mount_point)
            self._record(layer)
        except BaseException as error:
            layer.state = LayerState.FAILED
            if self.mounted.get(layer.id) is layer:
                self.mounted.remove(layer.id)
            if isinstance(error, FimError):
                await self._clear(layer.id)  # it may be mounted, with its process dead
            if isinstance(error, OSError):
                raise MountError(f"layer {layer.source.path}: {error.strerror}") from error
            raise
        log.info("layer mounted", fim_layer=layer.id, path=layer.source.path)
        layer.process.on_end(lambda: self._on_process_end(layer))
        layer.state = LayerState.MOUNTED
        if layer.references == 0:  # its user was cancelled meanwhile
            layer.state = LayerState.IDLE
            self._retire_after(layer, self._linger())
        self.mounted.changed(layer.id)

    def _on_process_end(self, layer: Layer) -> None:
        if layer.state not in {LayerState.MOUNTED, LayerState.IDLE}:
            return
        log.error("layer's process died", fim_layer=layer.id, path=layer.source.path)
        if layer.timer is not None:
            layer.timer.cancel()
        layer.state = LayerState.FAILED
        self.mounted.changed(layer.id)
        self._spawn(self._unmount(layer))
        self.on_failure(layer)

    def _record_path(self, layer_id: str) -> str:
        return f"{self._tree.layer(layer_id)}.json"

    def _record(self, layer: Layer) -> None:
        """Write down what a later daemon needs to take the mount over."""
        assert layer.process is not None
        source = layer.source
        facts = {
            **asdict(source),
            "content": source.content.hex(),
            "engine": layer.engine,
            "pid": layer.process.pid,
            "process_started": layer.process.started,
        }
        records.write(self._record_path(layer.id), facts)

    async def adopt(self, mount_points: set[str]) -> None:
        """Take over the mounts of a daemon that died, and remove what is no mount any more.

        Each is idle until `retain` or `acquire` takes a reference; `settle` lets the others go.
        """
        directory = str(self._tree.root / "layers")
        records.remove_unfinished(directory)
        for layer_id in {name.removesuffix(".json") for name in os.listdir(directory)}:
            mount_point = str(self._tree.layer(layer_id))
            layer = self._recorded(layer_id)
            if layer is None or layer.process is None or mount_point not in mount_points:
                await self._clear(layer_id)
                continue
            layer.process.on_end(partial(self._on_process_end, layer))
            self.mounted.add(layer.id, layer)
            log.info("layer adopted", fim_layer=layer.id, path=layer.source.path)

    def _recorded(self, layer_id: str) -> Layer | None:
        """Return the layer that a record describes, if its process lives."""
        facts = records.read(self._record_path(layer_id))
        try:
            if facts is None:
                return None
            engine, pid, started = (facts.pop(key) for key in ("engine", "pid", "process_started"))
            source = LayerSource(**{**facts, "content": bytes.fromhex(facts["content"])})
            layer = Layer(source, str(self._tree.layer(layer_id)), engine)
            if source.id != layer_id:
                return None
            layer.process = Process.known(pid, started)
        except (KeyError, TypeError, ValueError):
            return None
        layer.state = LayerState.IDLE
        layer.mounted = asyncio.get_running_loop().create_future()
        layer.mounted.set_result(None)
        return layer

    def retain(self, layer_id: str) -> Layer | None:
        """Take a reference to an adopted layer for an adopted instance; None where it is gone."""
        layer = self.mounted.get(layer_id)
        if layer is not None:
            layer.references += 1
            layer.state = LayerState.MOUNTED
        return layer

    def settle(self) -> None:
        """Begin the linger of what was adopted and nobody retained."""
        for layer in self.mounted:
            if layer.state is LayerState.IDLE and layer.timer is None:
                self._retire_after(layer, self._linger())

    def _retire_after(self, layer: Layer, seconds: float) -> None:
        layer.timer = asyncio.get_running_loop().call_later(seconds, self._retire, layer)

    def _retire(self, *layers: Layer) -> None:
        for layer in layers:
            layer.timer = None
            layer.state = LayerState.UNMOUNTING
            self.mounted.changed(layer.id)
        self._spawn(self._unmount_all(layers))

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unmount_all(self, layers: Iterable[Layer]) -> None:
        await self.give_up_silent(layers, _LAST_WORD)  # detached, it would hang for ever
        await asyncio.gather(*(self._unmount(layer) for layer in layers))

    async def _unmount(self, layer: Layer) -> None:
        try:
            await self.before_unmount()
            async with self._turns:
                await self._clear(layer.id)
            log.info("layer unmounted", fim_layer=layer.id)
        except (FimError, OSError) as error:
            log.error("layer could not be unmounted", fim_layer=layer.id, reason=str(error))
        finally:
            if self.mounted.get(layer.id) is layer:
                self.mounted.remove(layer.id)
            layer.gone.set()

    async def _clear(self, layer_id: str) -> None:
        await clear(str(self._tree.layer(layer_id)))
        records.remove(self._record_path(layer_id))

    async def retire_idle(self) -> int:
        """Unmount now what nobody uses, and wait until it is done; return how many those were."""
        idle = [layer for layer in self.mounted if layer.state is LayerState.IDLE]
        for layer in idle:
            if layer.timer is not None:
                layer.timer.cancel()
        self._retire(*idle)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return len(idle)


async def _at_once() -> None:
    pass


async def _end(layer: Layer) -> None:
    """End a layer's process by force; what follows is as if it had died by itself."""
    if layer.process is not None:
        await silent.end(layer.process, layer.mount_point)
