"""The deletions that a layer holds, by its metadata alone."""

from functools import lru_cache

from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource
from fimd.trees.merged import is_whiteout, open_layers


@lru_cache(maxsize=1024)
def whiteouts(source: LayerSource) -> frozenset[bytes]:
    """Return the paths that a layer deletes. Raises BadLayerError. Reads the file: for a thread."""
    with open_layers([LayerPlace(source.path, source.offset, source.size)]) as [image]:
        devices = image.metadata.devices
        if all(devices[index] for index in range(len(devices))):
            return frozenset()  # nearly every layer: no need to look at each name
        entries = image.walk()
        return frozenset(path for path, facts in entries if is_whiteout(facts.mode, facts.rdev))
