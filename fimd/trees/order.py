"""Whether a new layer may lie below others without being hidden by them.

A layer in the image lies below those of FIM_LAYERS and below the managed ones. What was changed
above them all would be seen otherwise, or not at all, if one of them has the same path. Only the
time of a directory may differ: it changes with every name in it.
"""

from collections.abc import Iterable, Sequence

from fimd.base.errors import FimError
from fimd.dwarfs.reader import Image
from fimd.dwarfs.write import Entry
from fimd.dwarfs.write.entries import printable
from fimd.trees.merged import is_whiteout


def check_visible(entries: Iterable[Entry], above: Sequence[Image]) -> None:
    """Raise FimError, which names both, where one of the layers above hides an entry."""
    for image in reversed(above):
        for entry in entries:
            if entry.path and _hides(image, entry):
                raise FimError(
                    f"the new layer would lie below {image.source.name}, which has a say about "
                    f"/{printable(entry.path)} too and would hide what was changed: commit as "
                    "'layer' instead, or add that layer to the image first"
                )


def _hides(image: Image, entry: Entry) -> bool:
    inode = image.root
    names = entry.path.split(b"/")
    for depth, name in enumerate(names, 1):
        child = image.lookup(inode, name)
        if child is None:
            return False
        inode = child
        if depth < len(names) and not image.tree.is_directory(inode):
            return True
    found = image.stat(inode)
    if entry.is_directory and image.tree.is_directory(inode):
        return found.mode != entry.mode
    both_deleted = is_whiteout(entry.mode, entry.rdev) and is_whiteout(found.mode, found.rdev)
    return not both_deleted
