"""What the tests of layers make by hand."""

import os
from collections.abc import Callable
from pathlib import Path

from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource

Fill = Callable[[Path], None]
"""Puts something into an empty directory."""
MakeLayer = Callable[[Fill], LayerPlace]
"""The fixture `make_layer`."""


def whiteout(path: Path) -> None:
    """Make a deletion as kernel overlayfs does."""
    os.mknod(path, 0o020000, 0)


def sources(*places: LayerPlace) -> tuple[LayerSource, ...]:
    """What layers are to who looks only at what is in them."""
    return tuple(
        LayerSource(place.path, place.offset, place.size, 0, number, place.path.encode())
        for number, place in enumerate(places)
    )


def directories(*paths: str) -> Fill:
    """Return what makes directories below another."""

    def fill(top: Path) -> None:
        for path in paths:
            (top / path).mkdir(parents=True)

    return fill
