"""What was changed in an upper directory: looked through by a process in a jail."""

import os
from collections.abc import Sequence
from typing import Any, Final

from fimd.base.errors import FimError
from fimd.dwarfs.codecs import load_codecs
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.write import SourceTree
from fimd.layers.owners import are_kept, mapped_ids
from fimd.layers.place import LayerPlace, opened_files
from fimd.mounts.jail import call_apart, imprison
from fimd.stacks.data import opened_upper
from fimd.trees.canonical import canonical
from fimd.trees.diff import Change, Kind, changes
from fimd.trees.merged import Merged, open_layers
from fimd.trees.upper import read_upper

_SECONDS: Final = 600.0


def changed(image: str, data: str, layers: Sequence[LayerPlace]) -> list[Change]:
    """Return what the upper of an image changes, sorted by paths.

    `image` is a real path, `data` the data directory, and `layers` are those below the upper, base
    first. Blocks, as `call_apart`. Raises FimError.
    """
    places = [(layer.path, layer.offset, layer.size) for layer in layers]
    arguments = {"image": image, "data": data, "layers": places}
    return [
        Change(Kind(kind), os.fsencode(path), mode, size)
        for kind, path, mode, size in call_apart(f"{__name__}:changed_in_jail", arguments)
    ]


def changed_in_jail(arguments: dict[str, Any], _files: list[int]) -> list[tuple[Any, ...]]:
    """Look through the upper by this process, which is imprisoned in it."""
    load_codecs()
    places = [LayerPlace(*place) for place in arguments["layers"]]
    try:
        with (
            opened_upper(arguments["image"], arguments["data"]) as upper,
            opened_files(places) as files,
            open_layers(files) as layers,
        ):
            if upper is None:
                return []
            ids = mapped_ids()
            seen = all(are_kept(layer, ids) for layer in layers)
            imprison(upper, seconds=_SECONDS)
            with SourceTree("the changes", directory=upper) as tree:
                lower = Merged(layers)
                entries = canonical(read_upper(tree, tree.scan()), lower)
            found = sorted(changes(entries, lower, owners=seen), key=lambda item: item.path)
    except (DwarfsError, MemoryError) as error:
        raise FimError(str(error) or "they are too many for this machine's memory") from error
    return [(item.kind, os.fsdecode(item.path), item.mode, item.size) for item in found]
