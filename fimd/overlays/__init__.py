"""The overlay backends, by the names that `fim-overlay set` and FIM_OVERLAY know.

A new backend is one file with a `begin` of the type `Begin`, and a `serve` of the type `Serve`
where a program is to follow; and one line here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fimd.base.limits import Limit
from fimd.mounts.namespace import Namespace
from fimd.overlays import copied, kernel, overlayfs, unionfs
from fimd.overlays.stack import Begin, Overlay, Serve, StackDirectory


def _devices() -> None:
    """Deletions are devices 0:0."""


@dataclass(frozen=True)
class Backend:
    """How an overlay is mounted, and the form in which it reads and writes deletions.

    `begin` returns what a process of the namespace does for it, `serve` starts the program that
    serves it, None for the kernel's.
    `marks` returns the directory of unionfs's marks, None for a backend that has devices 0:0.
    `limits` is what programs miss on it: tests hold it to just these, and users read of them in
    docs/concepts.md.
    """

    begin: Begin
    serve: Serve | None = None
    marks: Callable[[], bytes | None] = _devices
    limits: tuple[Limit, ...] = ()
    takes_files: bool = False
    """Whether it reads a file `.wh.NAME` as a deletion, too, where there can be no devices."""
    sees_ghosts: bool = False
    """Whether it looks for names in layers from which one above hides them."""
    is_copy: bool = False
    """Whether the upper is to be the whole tree."""

    async def mount(self, stack: StackDirectory, namespace: Namespace, seconds: float) -> Overlay:
        """Mount an overlay over directories that are ready. Raises MountError, UnsupportedError."""
        step = await asyncio.to_thread(self.begin, stack, seconds)
        [begun] = await namespace.call(step, serves=("fim_stack", stack.id))
        return await self.follow(stack, begun, namespace, seconds)

    async def follow(
        self, stack: StackDirectory, begun: Any, namespace: Namespace, seconds: float
    ) -> Overlay:
        """Do what is left to do when its step is done, which returned `begun`."""
        if self.serve is None:
            return Overlay(None, stack.merged)
        return await self.serve(stack, begun, namespace, seconds)


BACKENDS: Final = {
    "bwrap": Backend(kernel.begin, limits=kernel.LIMITS),
    "overlayfs": Backend(
        overlayfs.begin,
        overlayfs.serve,
        limits=overlayfs.LIMITS,
        takes_files=True,
        sees_ghosts=True,
    ),
    "unionfs": Backend(unionfs.begin, unionfs.serve, unionfs.marks_directory, unionfs.LIMITS),
}

COPY: Final = "copy"
KNOWN: Final = {**BACKENDS, COPY: Backend(copied.begin, takes_files=True, is_copy=True)}
"""These, and what stands in for them where there are none."""

DEFAULT: Final = "bwrap"
"""What an image has that asks for none."""
