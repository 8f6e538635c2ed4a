"""A data directory that is held open: what is done to it is done to what was found and checked."""

import os
from dataclasses import dataclass
from typing import Final

PARTS: Final = ("tmp", "root", "work", "layers", "casefold")
"""What a data directory consists of."""
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class OpenData:
    """Descriptors of a data directory and its parts. `path` is what messages call it.

    The upper is what `name` is in the directory `holder`: root/ in the data directory itself, or
    that of a FlatImage 1.x elsewhere.
    """

    path: str
    directory: int
    holder: int
    name: str
    tmp: int
    work: int
    layers: int

    @property
    def root(self) -> str:
        """What messages call the upper."""
        return os.path.join(self.path, "root")

    def open_upper(self) -> int:
        """Open the directory that is the upper now; the descriptor is the caller's."""
        return os.open(self.name, DIRECTORY, dir_fd=self.holder)
