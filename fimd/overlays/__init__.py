"""The overlay backends, by the names that `fim-overlay set` and FIM_OVERLAY know.

A new backend is one file with a `mount` of the type `Mount`, and one line here.
"""

from typing import Final

from fimd.overlays import kernel, overlayfs, unionfs
from fimd.overlays.stack import Mount

BACKENDS: Final[dict[str, Mount]] = {
    "bwrap": kernel.mount,
    "overlayfs": overlayfs.mount,
    "unionfs": unionfs.mount,
}

FALLBACK: Final = "unionfs"
"""What stands in where another backend can't be mounted."""
