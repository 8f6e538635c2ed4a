"""Names in directories that layers hide, where there is a directory again further up.

They must not show there. Who reads the stack by its rules never sees them; this is for those who
look further than they should.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from fimd.base.errors import BadLayerError
from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image
from fimd.layers.place import LayerPlace
from fimd.trees.merged import join, open_layers
from fimd.trees.walk import Walk


def ghosts(
    places: Sequence[LayerPlace], hidden: Sequence[Iterable[bytes]], upper: int
) -> dict[int, set[bytes]]:
    """Return the paths, by the number of the layer that hides them.

    A directory that is there again as such is not among them, but the ghosts in it are. `places`
    are the layers, base first, `hidden` is of `hidden_directories`, and `upper` an open directory.
    Raises BadLayerError.
    """
    found: defaultdict[int, set[bytes]] = defaultdict(set)
    with open_layers(places) as images, Beneath(upper) as beneath:
        try:
            for number, directories in enumerate(hidden):
                for path in _below(images[:number], images[number + 1 :], beneath, directories):
                    found[number].add(path)
        except DwarfsError as error:
            raise BadLayerError(f"layer {error}") from error
    return found


def _below(
    lower: Sequence[Image], above: Sequence[Image], upper: Beneath, directories: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the names of lower layers in directories that are there again, in all depths."""

    def is_there(path: bytes) -> bool:
        return _is_directory(upper, path) or any(_find(image, path) is not None for image in above)

    walk = Walk(lower)
    for path in filter(is_there, directories):
        found = [(number, _find(image, path)) for number, image in enumerate(lower)]
        walk.enter(path, [(number, inode) for number, inode in found if inode is not None])
    for directory, listings in walk:
        for name in {name for listing in listings for name in listing.names}:
            path = join(directory, name)
            if is_there(path):
                walk.enter(path, [listing.directory(name) for listing in listings])
            else:
                yield path


def _find(image: Image, path: bytes) -> int | None:
    """The inode of a directory, None where there is none."""
    inode = image.root
    for name in path.split(b"/"):
        child = image.lookup(inode, name)
        if child is None or not image.tree.is_directory(child):
            return None
        inode = child
    return inode


def _is_directory(upper: Beneath, path: bytes) -> bool:
    """Tell whether a path is a directory, and so are those above it: no links."""
    try:
        parent, name = upper.parent(path)
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False
