"""A mounted layer, and the mount that it has with others: what both are, and their record."""

import asyncio
import os
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Final, Self

from fimd.layers.source import LayerSource
from fimd.mounts.process import Process

EXTERNAL: Final = "external"
EMBEDDED: Final = "embedded"
UNPACKED: Final = "unpacked"


class LayerState(StrEnum):
    """Where a layer is in its life."""

    MOUNTING = "mounting"
    MOUNTED = "mounted"
    IDLE = "idle"  # mounted, used by nobody
    UNMOUNTING = "unmounting"
    FAILED = "failed"  # its process died under its users


class Layer:
    """One layer of a mount. Its owner is Layers; others look."""

    def __init__(self, source: LayerSource, mount: "LayerMount", mount_point: str) -> None:
        self.source = source
        self.mount = mount
        self.mount_point = mount_point
        self.state = LayerState.MOUNTING
        self.references = 0

    @property
    def id(self) -> str:
        """The layer's identifier."""
        return self.source.id

    @property
    def engine(self) -> str:
        """Which DwarFS serves it, or that it is shown from the store."""
        return self.mount.engine

    @property
    def process(self) -> Process | None:
        """What serves it, once it is mounted."""
        return self.mount.process


class LayerMount:
    """One process, its mount, and the layers that this shows. Named by the first of them."""

    def __init__(self, mount_id: str, mount_point: str, engine: str) -> None:
        self.id = mount_id
        self.mount_point = mount_point
        self.engine = engine
        self.layers: list[Layer] = []
        self.process: Process | None = None
        self.mounted: asyncio.Future[None]  # set by who mounts it, or finds it mounted
        self.timer: asyncio.TimerHandle | None = None
        self.holds_namespace = False
        self.gone = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether nobody uses any of its layers."""
        return all(layer.state is LayerState.IDLE for layer in self.layers)

    def place(self, source: LayerSource) -> str:
        """Where a layer's tree is in this mount: an external program shows one alone."""
        if self.engine == EXTERNAL:
            return self.mount_point
        return os.path.join(self.mount_point, source.id)

    def record(self) -> dict[str, Any]:
        """What a later daemon needs to take the mount over, once it is mounted."""
        assert self.process is not None
        return {
            "engine": self.engine,
            "pid": self.process.pid,
            "process_started": self.process.started,
            "layers": [
                {**asdict(layer.source), "content": layer.source.content.hex()}
                for layer in self.layers
            ],
        }

    @classmethod
    def recorded(cls, mount_id: str, mount_point: str, facts: dict[str, Any] | None) -> Self | None:
        """The mount that a record describes, all of it idle; None if its process has ended.

        Where a layer is, is what follows from its name.
        """
        try:
            if facts is None:
                return None
            mount = cls(mount_id, mount_point, facts["engine"])
            for written in facts["layers"]:
                content = bytes.fromhex(written.pop("content"))
                source = LayerSource(**written, content=content)
                layer = Layer(source, mount, mount.place(source))
                layer.state = LayerState.IDLE
                mount.layers.append(layer)
            if not mount.layers or mount.layers[0].id != mount_id:
                return None
            mount.process = Process.known(facts["pid"], facts["process_started"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        mount.mounted = asyncio.get_running_loop().create_future()
        mount.mounted.set_result(None)
        return mount if mount.process is not None else None
