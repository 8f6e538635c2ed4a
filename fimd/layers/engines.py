"""The two DwarFS engines that can mount a layer; both must show the same tree."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Final

from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image
from fimd.errors import BadLayerError, MountError, UnsupportedError
from fimd.layers import owners
from fimd.layers.source import LayerSource
from fimd.mounts.external import mount_by_command
from fimd.mounts.forks import Template
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process
from fimd.mounts.table import MountTable
from fimd.settings import Settings

WORKER: Final = "fimd.layers.worker"
_INODE_NUMBERS: Final = 1 << 32
_INODES: Final = 1 << 24  # more than a layer has

Engine = Callable[[LayerSource, str], Awaitable[Process]]
"""Mounts a layer at a mount point and returns the process that serves it."""


def choose(
    settings: Settings, template: Template, table: MountTable, outputs: Outputs
) -> tuple[str, Engine]:
    """Return the engine that the settings ask for, and its name."""
    program = shutil.which("dwarfs")
    if settings.engine == "external" and program is None:
        raise UnsupportedError(
            "the setting engine is 'external' and dwarfs is not installed: install it, or set "
            "engine to 'embedded'"
        )
    if program is None or settings.engine == "embedded":
        return "embedded", _embedded(settings, template)
    return "external", _external(program, settings, table, outputs)


def _embedded(settings: Settings, template: Template) -> Engine:
    async def mount(layer: LayerSource, mount_point: str) -> Process:
        descriptor = _open(layer)
        try:
            return await template.fork(
                WORKER,
                name=f"layer-{layer.id[:8]}",
                arguments={
                    "offset": layer.offset,
                    "size": layer.size,
                    "mount_point": mount_point,
                    "uid": os.getuid(),
                    "gid": os.getgid(),
                    "source": f"fimd-{layer.id}",
                    "allow_other": os.getuid() == 0,
                    "cache": settings.cache << 20,
                    "inode_offset": _inode_offset(layer),
                },
                files=[descriptor],
                serves=("fim_layer", layer.id),
                seconds=settings.mount_timeout,
            )
        except MountError as error:
            raise MountError(f"layer {layer.path} (at byte {layer.offset}): {error}") from error
        finally:
            os.close(descriptor)

    return mount


def _inode_offset(layer: LayerSource) -> int:
    """Return what a layer's inode numbers begin at, most likely far from those of others.

    fuse-overlayfs shows the layers' numbers as they are: where hard links of two layers had one
    number, tar and cp would take them for one file. Programs of 32 bits know none above 2**32.
    """
    return 1 + int(layer.id, 16) % (_INODE_NUMBERS - _INODES)


def _external(program: str, settings: Settings, table: MountTable, outputs: Outputs) -> Engine:
    async def mount(layer: LayerSource, mount_point: str) -> Process:
        kept = await asyncio.to_thread(_keeps_owners, layer)
        options = [
            *([] if kept else [f"uid={os.getuid()},gid={os.getgid()}"]),
            f"offset={layer.offset},imagesize={layer.size}",
            f"cachesize={settings.cache}m,fsname=fimd-{layer.id}",
            *(["allow_other"] if os.getuid() == 0 else []),
        ]
        command = [program, layer.path, mount_point, "-f", "-o", ",".join(options)]
        return await mount_by_command(
            command,
            serves=("fim_layer", layer.id),
            mount_point=mount_point,
            table=table,
            outputs=outputs,
            seconds=settings.mount_timeout,
        )

    return mount


def _keeps_owners(layer: LayerSource) -> bool:
    descriptor = _open(layer)
    try:
        with Image.open(descriptor, layer.offset, layer.size) as image:
            return owners.are_kept(image)
    except DwarfsError as error:
        raise BadLayerError(f"layer {layer.path}: {error}") from error
    finally:
        os.close(descriptor)


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
