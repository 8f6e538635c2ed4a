"""The directories in whose place a layer has something else, by the layers' metadata alone."""

from collections.abc import Sequence
from functools import lru_cache

from fimd.dwarfs.reader import Image
from fimd.layers.merged import join, open_layers
from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource

_Parts = list[tuple[int, int]]
"""What a directory is made of: numbers of layers, topmost first, and inodes in them."""


@lru_cache(maxsize=256)
def replaced(sources: tuple[LayerSource, ...]) -> tuple[frozenset[bytes], ...]:
    """Return, for each layer, the directories that the layer just above it replaces.

    They may be in that layer or in one further down, and mean nothing any more: not even where
    there is a directory again, in a layer further up. `sources` are base first. Raises
    BadLayerError. Reads the files: for a thread.
    """
    places = [LayerPlace(source.path, source.offset, source.size) for source in sources]
    with open_layers(places) as images:
        found: list[set[bytes]] = [set() for _ in images]
        pending = [(b"", [(index, images[index].root) for index in reversed(range(len(images)))])]
        while pending:
            directory, parts = pending.pop()
            for name in _names_above(images, parts):
                path = join(directory, name)
                below, replacing = _look(images, parts, name)
                if replacing is not None:
                    found[replacing - 1].add(path)
                if len(below) > 1:
                    pending.append((path, below))
    return tuple(frozenset(paths) for paths in found)


def _names_above(images: Sequence[Image], parts: _Parts) -> set[bytes]:
    """The names that may stand above others."""
    return {name for index, inode in parts[:-1] for name, _ in images[index].readdir(inode)}


def _look(images: Sequence[Image], parts: _Parts, name: bytes) -> tuple[_Parts, int | None]:
    """Return the parts of the directory that a name is, and the layer that replaces another."""
    below: _Parts = []
    other = None
    for index, inode in parts:
        child = images[index].lookup(inode, name)
        if child is None:
            continue
        if not images[index].tree.is_directory(child):
            other = index if other is None else other
        elif other is None:
            below.append((index, child))
        else:
            return below, other
    return below, None
