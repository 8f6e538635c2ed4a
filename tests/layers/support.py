"""What the tests of layers make by hand."""

import os
from pathlib import Path


def whiteout(path: Path) -> None:
    """Make a deletion as kernel overlayfs does."""
    os.mknod(path, 0o020000, 0)
