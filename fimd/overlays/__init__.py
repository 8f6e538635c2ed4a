"""The overlay backends, by the names that `fim-overlay set` and FIM_OVERLAY know.

A new backend is one file with a `mount` of the type `Mount`, and one line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fimd.base.limits import Limit
from fimd.overlays import kernel, overlayfs, unionfs
from fimd.overlays.stack import Mount


def _devices() -> None:
    """Deletions are devices 0:0."""


@dataclass(frozen=True)
class Backend:
    """How an overlay is mounted, and the form in which it reads and writes deletions.

    `marks` returns the directory of unionfs's marks, None for a backend that has devices 0:0.
    `limits` is what programs miss on it: tests hold it to just these, and users read of them in
    docs/concepts.md.
    """

    mount: Mount
    marks: Callable[[], bytes | None] = _devices
    limits: tuple[Limit, ...] = ()
    takes_files: bool = False
    """Whether it reads a file `.wh.NAME` as a deletion, too, where there can be no devices."""
    sees_ghosts: bool = False
    """Whether it looks for names in layers from which one above hides them."""


BACKENDS: Final = {
    "bwrap": Backend(kernel.mount, limits=kernel.LIMITS),
    "overlayfs": Backend(
        overlayfs.mount, limits=overlayfs.LIMITS, takes_files=True, sees_ghosts=True
    ),
    "unionfs": Backend(unionfs.mount, unionfs.marks_directory, unionfs.LIMITS),
}

DEFAULT: Final = "bwrap"
"""What an image has that asks for none."""
