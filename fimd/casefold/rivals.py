"""What layers spell differently: under the view one of them is found, and hides the other."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from fimd.casefold.folding import fold
from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.reader import Image
from fimd.trees.merged import Merged, join


def rivals(layers: Sequence[Image]) -> Iterator[list[bytes]]:
    """Yield groups of paths that differ only in case, in directories that several layers have.

    `layers` are base first. Raises DamagedError where their directories are no tree.
    """
    merged = Merged(layers)
    pending = [b""] if layers else []
    left = sum(image.metadata.entry_count for image in layers)
    while pending:
        directory = pending.pop()
        node = merged.find(directory)
        left -= 1
        if left < 0:
            raise DamagedError("directories share their entries", path=layers[-1].source.name)
        if node is None:
            continue
        spellings: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for name in node.names()[0]:
            path = join(directory, name)
            spellings[fold(name)].append(path)
            child = node.child(name)
            if child is not None and child.is_directory and len(child.parts) > 1:
                pending.append(path)
        yield from (sorted(group) for group in spellings.values() if len(group) > 1)
