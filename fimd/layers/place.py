"""Where a layer is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Where a layer's bytes are: a file, and the offset and size in it."""

    path: str
    offset: int
    size: int
