"""Layers' mounts, shared by all instances: one mount per distinct layer, counted references."""

import asyncio
import os
from collections.abc import Callable
from enum import StrEnum

import structlog

from fimd.errors import FimError, MountError
from fimd.layers.engines import Engine
from fimd.layers.source import LayerSource
from fimd.mounts.process import Process
from fimd.mounts.unmount import detach, remove_directory
from fimd.observe import Collection
from fimd.paths import RuntimeTree

log = structlog.get_logger(__name__)


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
        self.mounted: asyncio.Task[None] | None = None
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
    ) -> None:
        self._tree = tree
        self._engine_name, self._mount = engine
        self._linger = linger
        self._tasks: set[asyncio.Task[None]] = set()
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
        layer.mounted = asyncio.create_task(self._mount_layer(layer), name=f"mount {layer.id}")
        layer.mounted.add_done_callback(lambda task: task.cancelled() or task.exception())
        return layer

    async def _mount_layer(self, layer: Layer) -> None:
        try:
            os.makedirs(layer.mount_point, mode=0o700, exist_ok=True)
            layer.process = await self._mount(layer.source, layer.mount_point)
        except BaseException as error:
            layer.state = LayerState.FAILED
            if self.mounted.get(layer.id) is layer:
                self.mounted.remove(layer.id)
            if isinstance(error, FimError):
                remove_directory(layer.mount_point)
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

    def _retire_after(self, layer: Layer, seconds: float) -> None:
        layer.timer = asyncio.get_running_loop().call_later(seconds, self._retire, layer)

    def _retire(self, layer: Layer) -> None:
        layer.timer = None
        layer.state = LayerState.UNMOUNTING
        self.mounted.changed(layer.id)
        self._spawn(self._unmount(layer))

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unmount(self, layer: Layer) -> None:
        try:
            await detach(layer.mount_point)
            remove_directory(layer.mount_point)
            log.info("layer unmounted", fim_layer=layer.id)
        except MountError as error:
            log.error("layer could not be unmounted", fim_layer=layer.id, reason=str(error))
        finally:
            if self.mounted.get(layer.id) is layer:
                self.mounted.remove(layer.id)
            layer.gone.set()

    async def retire_idle(self) -> None:
        """Unmount now what nobody uses, and wait until it is done."""
        for layer in self.mounted:
            if layer.state is LayerState.IDLE:
                assert layer.timer is not None
                layer.timer.cancel()
                self._retire(layer)
        await asyncio.gather(*self._tasks, return_exceptions=True)
