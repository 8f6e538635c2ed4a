"""Which overlay stands in where another can't be had: one whose FUSE program is installed.

Where FUSE is missing that is the kernel's, and a copy of the tree is the last resort.

The client says beforehand what the daemon is going to do, so this imports nothing heavy.
"""

import shutil
from typing import Final

from fimd.mounts import fuse_device

_PROGRAMS: Final = {"overlayfs": ("fuse-overlayfs",), "unionfs": ("unionfs", "unionfs-fuse")}
"""The overlays that may stand in, the best first."""
_WITHOUT_FUSE: Final = ("bwrap", "copy")


def stand_ins(overlay: str) -> tuple[str, ...]:
    """Return the overlays that may stand in for one, the best first."""
    if fuse_device.missing() is not None:
        return tuple(name for name in _WITHOUT_FUSE if name != overlay)
    return tuple(
        name
        for name, programs in _PROGRAMS.items()
        if name != overlay and any(map(shutil.which, programs))
    )
