"""The directories in whose place a layer above has something else, by the metadata alone."""

from functools import lru_cache

from fimd.base.errors import BadLayerError
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image
from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource
from fimd.trees.merged import join, open_layers
from fimd.trees.walk import Listing, Part, Walk


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
    walk = Walk(images)
    walk.enter(b"", [(number, image.root) for number, image in enumerate(images)][::-1])
    for directory, listings in walk:
        lower = {
            name for listing in listings[1:] for name in listing.names if listing.directory(name)
        }
        for name in lower:
            path = join(directory, name)
            parts, hiding = _look(listings, name)
            if hiding is not None:
                found[hiding].add(path)
            if len(parts) > 1:
                walk.enter(path, parts)
    return found


def _look(listings: list[Listing], name: bytes) -> tuple[list[Part], int | None]:
    """Return what the directory of a name is made of, topmost first, and who hides the rest."""
    parts: list[Part] = []
    other: int | None = None
    for listing in listings:
        if name not in listing.names:
            continue
        part = listing.directory(name)
        if part is None:
            other = listing.number if other is None else other
        elif other is None:
            parts.append(part)
        else:
            return parts, other
    return parts, None
