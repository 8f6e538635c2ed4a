"""What every overlay backend gets and gives."""

import os
from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass

from fimd.layers.source import LayerSource
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process
from fimd.mounts.table import MountTable


@dataclass(frozen=True)
class StackDirectory:
    """The directory of one stack. Its links make every name that a backend needs short and plain.

        layers/0..N   links to the layers' mounts, base first
        upper, work   links to the writable directories
        marks/N       what an overlay needs above layer N to read it, and those below, as it should
        merged/       where the overlay is to be mounted

    No path of the user's ever stands in a mount option, where a comma, a colon or a backslash
    would mean something, and hundreds of layers fit into mount(2)'s one page of options.
    """

    id: str
    path: str
    layers: int
    sources: tuple[LayerSource, ...] = ()
    """What the layers are, base first, for who is to mount them."""

    @property
    def links(self) -> str:
        """The directory of the links to the layers' mounts."""
        return os.path.join(self.path, "layers")

    @property
    def merged(self) -> str:
        """The mount point."""
        return os.path.join(self.path, "merged")

    @property
    def branches(self) -> list[str]:
        """The upper and every layer."""
        layers = (os.path.join(self.path, "layers", str(index)) for index in range(self.layers))
        return [os.path.join(self.path, "upper"), *layers]

    def top_down(self) -> str:
        """Return the layers' names, topmost first, joined by colons."""
        return ":".join(str(index) for index in reversed(range(self.layers)))

    def lower(self, marked: Container[int]) -> Iterator[str]:
        """Yield the layers' paths, topmost first, each below its marks where it has some."""
        for index in reversed(range(self.layers)):
            if index in marked:
                yield f"marks/{index}"
            yield f"layers/{index}"


@dataclass(frozen=True)
class Overlay:
    """A mounted overlay.

    `join` is the beginning of a command that enters the namespaces in which `root` is the merged
    tree, empty where it is mounted for all to see. `mount_point` is what has to be detached at
    the end, None where the mount ends with its process.
    """

    process: Process
    root: str
    join: tuple[str, ...]
    mount_point: str | None
    owned: bool = True
    """Whether the process is the overlay's own, to be ended with it."""


Mount = Callable[[StackDirectory, MountTable, Outputs, float], Awaitable[Overlay]]
"""Mounts the overlay of a stack within some seconds. Raises MountError or UnsupportedError."""
