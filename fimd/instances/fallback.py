"""Which overlay stands in where another can't be had: one whose FUSE program is installed.

The client says beforehand what the daemon is going to do, so this imports nothing heavy.
"""

import shutil
from typing import Final

_PROGRAMS: Final = {"overlayfs": ("fuse-overlayfs",), "unionfs": ("unionfs", "unionfs-fuse")}
"""The overlays that may stand in, the best first."""
_CASEFOLD_WARNING: Final = "casefold cannot be used with bwrap overlayfs, falling back to {}"


def stand_ins(overlay: str) -> tuple[str, ...]:
    """Return the overlays that may stand in for one, the best first."""
    return tuple(
        name
        for name, programs in _PROGRAMS.items()
        if name != overlay and any(map(shutil.which, programs))
    )


def under_view(overlay: str) -> tuple[str, str | None]:
    """Return the overlay that the view lies over where one is asked for, and a warning.

    The kernel's is seen in its own namespace only. Without another, mounting says what to install.
    """
    if overlay != "bwrap":
        return overlay, None
    name, *_ = (*stand_ins(overlay), *_PROGRAMS)
    return name, _CASEFOLD_WARNING.format(name)
