"""What can provide layers' trees: two DwarFS engines, and the store of unpacked ones.

All of them must show the same tree.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import BadLayerError, MountError, UnsupportedError
from fimd.base.settings import Settings
from fimd.layers.mounted import EMBEDDED, EXTERNAL, UNPACKED
from fimd.layers.source import LayerSource
from fimd.mounts import fuse_device
from fimd.mounts.external import mount_by_command
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process
from fimd.mounts.steps import Step
from fimd.mounts.template import MAX_FILES
from fimd.store.store import check_place

WORKER: Final = "fimd.layers.worker"
_UNPACKER: Final = "fimd.layers.unpacked"
_UNPACKING: Final = 3600.0
"""Seconds that layers may take to be unpacked."""
_INODE_NUMBERS: Final = 1 << 32
_INODES: Final = 1 << 24  # more than a layer has
_WORTH_A_PROCESS: Final = 16
"""Layers for which another process is started, where there is a processor for it; and which are
mounted within the time limit of one mount."""

_Mount = Callable[[Sequence[LayerSource], str], Awaitable[Process]]


@dataclass(frozen=True)
class Engine:
    """One way of mounting layers.

    Attributes:
        name: "embedded", "external" or "unpacked".
        mount: mounts layers at a mount point and returns the process that serves them.
        most: how many layers one mount may show.
    """

    name: str
    mount: _Mount
    most: int

    def divide(self, layers: Sequence[LayerSource]) -> list[Sequence[LayerSource]]:
        """Divide layers among mounts: no more of these than can work at the same time."""
        processes = min(os.cpu_count() or 1, _processes_worth(layers))
        each = min(self.most, -(-len(layers) // max(processes, 1)))
        return [layers[start : start + each] for start in range(0, len(layers), each or 1)]


def _processes_worth(layers: Sequence[LayerSource]) -> int:
    return -(-len(layers) // _WORTH_A_PROCESS)


def chooser(settings: Settings, namespace: Namespace) -> Callable[[], Engine]:
    """Return what tells the engine for the next mount: another one where FUSE is missing.

    Raises UnsupportedError where the settings ask for one that is not installed.
    """
    served = choose(settings, namespace)
    unpacked = Engine(UNPACKED, _unpacked(settings, namespace), MAX_FILES)
    return lambda: served if fuse_device.missing() is None else unpacked


def choose(settings: Settings, namespace: Namespace) -> Engine:
    """Return the engine by FUSE that the settings ask for. Raises UnsupportedError."""
    program = shutil.which("dwarfs")
    if settings.engine == "external" and program is None:
        raise UnsupportedError(
            "the setting engine is 'external' and dwarfs is not installed: install it, or set "
            "engine to 'embedded'"
        )
    if program is None or settings.engine == "embedded":
        return Engine(EMBEDDED, _embedded(settings, namespace), MAX_FILES)
    return Engine(EXTERNAL, _external(program, settings, namespace), 1)


def _embedded(settings: Settings, namespace: Namespace) -> _Mount:
    async def mount(layers: Sequence[LayerSource], mount_point: str) -> Process:
        with _opened(layers) as (files, numbers):
            try:
                return await namespace.serve(
                    WORKER,
                    name=f"layer-{layers[0].id[:8]}",
                    arguments={
                        "mount_point": mount_point,
                        "source": f"fimd-{layers[0].id}",
                        "cache": settings.cache << 20,
                        "layers": [
                            {
                                "id": layer.id,
                                "file": number,
                                "offset": layer.offset,
                                "size": layer.size,
                                "inode_offset": _inode_offset(layer),
                            }
                            for layer, number in zip(layers, numbers, strict=True)
                        ],
                    },
                    files=files,
                    serves=("fim_layer", layers[0].id),
                    seconds=settings.mount_timeout * _processes_worth(layers),
                )
            except MountError as error:
                raise MountError(f"{_described(layers)}: {error}") from error

    return mount


def _unpacked(settings: Settings, namespace: Namespace) -> _Mount:
    async def mount(layers: Sequence[LayerSource], mount_point: str) -> Process:
        serves = ("fim_layer", layers[0].id)
        store = {"path": await asyncio.to_thread(check_place), "most": settings.store << 20}
        with _opened(layers) as (files, numbers):
            asked = [
                {
                    "path": layer.path,
                    "file": number,
                    "offset": layer.offset,
                    "size": layer.size,
                    "content": layer.content.hex(),
                }
                for layer, number in zip(layers, numbers, strict=True)
            ]
            arguments = {"store": store, "layers": asked}
            step = Step(f"{_UNPACKER}:unpack", "unpack", _UNPACKING, arguments, tuple(files))
            [trees] = await namespace.call(step, serves=serves)
        return await namespace.serve(
            _UNPACKER,
            name=f"layer-{layers[0].id[:8]}",
            arguments={
                "mount_point": mount_point,
                "source": f"fimd-{layers[0].id}",
                "store": store,
                "trees": {layer.id: tree for layer, tree in zip(layers, trees, strict=True)},
            },
            serves=serves,
            seconds=settings.mount_timeout,
        )

    return mount


@contextmanager
def _opened(layers: Sequence[LayerSource]) -> Iterator[tuple[list[int], list[int]]]:
    """Open the layers' files, each once, and say of each layer which of them it is in."""
    with ExitStack() as opened:
        files: list[int] = []
        known: dict[tuple[int, int], int] = {}
        for layer in layers:
            if (layer.device, layer.inode) not in known:
                known[layer.device, layer.inode] = len(files)
                files.append(_open(layer))
                opened.callback(os.close, files[-1])
        yield files, [known[layer.device, layer.inode] for layer in layers]


def _described(layers: Sequence[LayerSource]) -> str:
    first = layers[0]
    if len(layers) == 1:
        return f"layer {first.path} (at byte {first.offset})"
    others = any(layer.path != first.path for layer in layers)
    return f"{len(layers)} layers of {first.path}{' and other files' if others else ''}"


def _inode_offset(layer: LayerSource) -> int:
    """Return what a layer's inode numbers begin at, most likely far from those of others.

    fuse-overlayfs shows the layers' numbers as they are: where hard links of two layers had one
    number, tar and cp would take them for one file. Programs of 32 bits know none above 2**32.
    """
    return 2 + int(layer.id, 16) % (_INODE_NUMBERS - _INODES)


def _external(program: str, settings: Settings, namespace: Namespace) -> _Mount:
    async def mount(layers: Sequence[LayerSource], mount_point: str) -> Process:
        (layer,) = layers
        kept = await _keeps_owners(layer, namespace, settings.mount_timeout)
        options = [
            *([] if kept else ["uid=0,gid=0"]),
            f"offset={layer.offset},imagesize={layer.size}",
            f"cachesize={settings.cache}m,fsname=fimd-{layer.id}",
            "allow_other",
        ]
        command = [program, layer.path, mount_point, "-f", "-o", ",".join(options)]
        return await mount_by_command(
            command,
            serves=("fim_layer", layer.id),
            mount_point=mount_point,
            namespace=namespace,
            seconds=settings.mount_timeout,
        )

    return mount


async def _keeps_owners(layer: LayerSource, namespace: Namespace, seconds: float) -> bool:
    """Ask a process in the namespace, whose ids count, and which may die of what it reads."""
    descriptor = _open(layer)
    try:
        arguments = {"path": layer.path, "offset": layer.offset, "size": layer.size}
        step = Step("fimd.layers.owners:keeps", "owners", seconds, arguments, (descriptor,))
        [kept] = await namespace.call(step, serves=("fim_layer", layer.id))
    finally:
        os.close(descriptor)
    return bool(kept)


def _open(layer: LayerSource) -> int:
    """Open the layer's file, if it still is the one that was resolved."""
    try:
        descriptor = os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadLayerError(f"layer {layer.path}: {error.strerror}") from error
    facts = os.fstat(descriptor)
    if (facts.st_dev, facts.st_ino) != (layer.device, layer.inode):
        os.close(descriptor)
        raise BadLayerError(f"layer {layer.path} was replaced while it was being mounted: retry")
    return descriptor
