"""Extended attributes, of which DwarFS has none: capabilities of files, access lists, users' own.

Whatever makes a layer says what of them is lost.
"""

import errno
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fimd.dwarfs.write import Entry, SourceTree

_MARKS: Final = re.compile(r"(user|trusted)\.(overlay|fuseoverlayfs)\.")
_LABELS: Final = ("security.selinux", "security.ima", "security.evm", "security.SMACK64")
"""What a machine gives files by itself."""


def names(descriptor: int) -> list[str]:
    """Return the names of an open file's attributes."""
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def is_lost(name: str) -> bool:
    """Tell whether somebody misses an attribute of a file that has none in a layer."""
    return name not in _LABELS and not _MARKS.match(name)


def lost(tree: SourceTree, entries: Iterable[Entry]) -> Counter[str]:
    """Return how many entries of a tree have an attribute that is lost, by its name."""
    found: Counter[str] = Counter()
    for entry in entries:
        if entry.is_file or entry.is_directory:  # others can have none that a user sets
            with tree.open(entry) as descriptor:
                found.update(filter(is_lost, names(descriptor)))
    return found


def lost_below(directory: str, only: Iterable[bytes] | None = None) -> Iterator[str]:
    """Yield what `sentences` does for a directory, or for `only` some paths in it.

    What can't be read is passed over, since who packs it says so. Raises PackError.
    """
    with SourceTree(directory, on_skip=lambda _path, _reason: None) as tree:
        yield from sentences(lost(tree, tree.scan(only)))


def sentences(found: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each attribute that is lost."""
    for name, count in sorted(found.items()):
        files = "1 file" if count == 1 else f"{count} files"
        yield f"the attribute {name} of {files} is not kept: DwarFS has none"
