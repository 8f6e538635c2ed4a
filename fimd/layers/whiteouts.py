"""The deletions that a layer holds, by its metadata alone."""

from functools import lru_cache

from fimd.layers.merged import LayerPlace, is_whiteout, open_layers
from fimd.layers.source import LayerSource


@lru_cache(maxsize=1024)
def whiteouts(source: LayerSource) -> frozenset[bytes]:
    """Return the paths that a layer deletes. Raises BadLayerError. Reads the file: for a thread."""
    with open_layers([LayerPlace(source.path, source.offset, source.size)]) as [image]:
        metadata = image.metadata
        if not metadata.has_devices or all(metadata.devices):
            return frozenset()  # nearly every layer: no need to look at each name
        return frozenset(
            path for path, facts in image.walk() if is_whiteout(facts.mode, facts.rdev)
        )
