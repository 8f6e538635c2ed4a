"""What is told of a start where FUSE is missing."""

from typing import Final

from fimd.overlays import COPY
from fimd.stacks.stack import Stack
from fimd.store import store

_UNPACKED: Final = (
    "{reason}, so layers are unpacked into {place}, which takes room there and time at the first "
    "start; there is no case-insensitive view, and {overlay}; for all that, {remedy}"
)
_KERNEL: Final = "of overlays the kernel's alone"
_COPY: Final = "no overlay: each start copies what the image holds into the data directory"


def told(stack: Stack, no_fuse: str | None) -> list[str]:
    """Return a stack's warnings, of which what is different without FUSE is one.

    `no_fuse` is of fimd.mounts.fuse_device.missing.
    """
    notes = list(stack.warnings)
    if no_fuse is None:
        return notes
    overlay = _COPY if stack.overlay_name == COPY else _KERNEL
    if notes and stack.overlay_name != stack.spec.overlay:
        overlay += f" ({notes.pop()})"
    reason, _, remedy = no_fuse.partition(": ")
    place = store.place()
    said = _UNPACKED.format(reason=reason, place=place, overlay=overlay, remedy=remedy)
    return [*notes, said]
