"""Which overlay stands in where another can't be had: one whose FUSE program is installed.

The client says beforehand what the daemon is going to do, so this imports nothing heavy.
"""

import shutil
from typing import Final

_PROGRAMS: Final = {"overlayfs": ("fuse-overlayfs",), "unionfs": ("unionfs", "unionfs-fuse")}
"""The overlays that may stand in, the best first."""


def stand_ins(overlay: str) -> tuple[str, ...]:
    """Return the overlays that may stand in for one, the best first."""
    return tuple(
        name
        for name, programs in _PROGRAMS.items()
        if name != overlay and any(map(shutil.which, programs))
    )
