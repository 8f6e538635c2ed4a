"""Whom the files of a layer belong to, as an application sees it.

A user without privileges is the owner of everything, as FlatImage has it. So is root over layers
that somebody else made. In those that root made the owners are what was committed.
"""

import os
from typing import Final

from fimd.dwarfs.reader import Image

ROOT: Final = 0


def are_kept(layer: Image) -> bool:
    """Whether a layer shows the owners that it holds."""
    return os.geteuid() == ROOT and layer.stat(layer.root).uid == ROOT
