"""The directories in whose place a layer above has something else, by the metadata alone."""

from functools import lru_cache

from fimd.dwarfs.errors import DamagedError, DwarfsError
from fimd.dwarfs.reader import Image
from fimd.errors import BadLayerError
from fimd.layers.merged import join, open_layers
from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource

_Part = tuple[int, Image, int]
"""What one layer has of a directory: the layer's number, the layer, and the inode."""
_Listing = tuple[int, Image, dict[bytes, int]]
"""The same with the names in it, and their inodes, in the place of its own."""


@lru_cache(maxsize=256)
def hidden_directories(sources: tuple[LayerSource, ...]) -> tuple[frozenset[bytes], ...]:
    """Return, for each layer, the directories of lower ones that it deletes or replaces.

    They mean nothing any more: not even where there is a directory again, in a layer further up.
    Of several layers that hide a directory only the topmost counts. `sources` are base first.
    Raises BadLayerError. Reads the files: for a thread.
    """
    places = [LayerPlace(source.path, source.offset, source.size) for source in sources]
    with open_layers(places) as images:
        try:
            return tuple(map(frozenset, _find(images)))
        except DwarfsError as error:
            raise BadLayerError(f"layer {error}") from error


def _find(images: list[Image]) -> list[set[bytes]]:
    found: list[set[bytes]] = [set() for _ in images]
    left = sum(image.metadata.entry_count for image in images)
    parts = [(number, image, image.root) for number, image in enumerate(images)]
    pending: list[tuple[bytes, list[_Part]]] = [(b"", parts[::-1])]
    while pending:
        directory, parts = pending.pop()
        listings = [(number, image, dict(image.readdir(inode))) for number, image, inode in parts]
        left -= sum(len(names) for _, _, names in listings)
        if left < 0:
            raise DamagedError("directories share their entries", path=images[-1].source.name)
        for name in _lower_directories(listings):
            path = join(directory, name)
            parts, hiding = _look(listings, name)
            if hiding is not None:
                found[hiding].add(path)
            if len(parts) > 1:
                pending.append((path, parts))
    return found


def _lower_directories(listings: list[_Listing]) -> set[bytes]:
    """The names that are directories in any layer but the topmost."""
    return {
        name
        for _, image, names in listings[1:]
        for name, inode in names.items()
        if image.tree.is_directory(inode)
    }


def _look(listings: list[_Listing], name: bytes) -> tuple[list[_Part], int | None]:
    """Return what the directory of a name is made of, topmost first, and who hides the rest."""
    parts: list[_Part] = []
    other: int | None = None
    for number, image, names in listings:
        inode = names.get(name)
        if inode is None:
            continue
        if not image.tree.is_directory(inode):
            other = number if other is None else other
        elif other is None:
            parts.append((number, image, inode))
        else:
            return parts, other
    return parts, None
