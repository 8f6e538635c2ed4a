"""What a layer, or an upper directory, adds to the layers below, changes, and deletes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fimd.dwarfs.write import Entry
from fimd.trees.entries import entry_of
from fimd.trees.merged import Merged, Node, is_whiteout


class Kind(StrEnum):
    """What happened to a path."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True)
class Change:
    """One path, with its kind and the new size of a file in bytes."""

    kind: Kind
    path: bytes
    mode: int
    size: int = 0


def changes(entries: Iterable[Entry], lower: Merged, *, owners: bool = False) -> Iterator[Change]:
    """Return the changes that a layer in canonical form makes, in the order of its entries.

    A directory that only holds changes is none itself, and neither is a copy that is the same.
    `owners` says whether owners can be seen (see fimd.layers.owners), and so can differ.
    """
    for entry in entries:
        below = lower.find(entry.path)
        if is_whiteout(entry.mode, entry.rdev):
            if below is not None:
                yield Change(Kind.DELETED, entry.path, below.attributes.mode)
        elif below is None:
            yield Change(Kind.ADDED, entry.path, entry.mode, entry.size)
        elif _differs(entry, below, owners=owners):
            yield Change(Kind.CHANGED, entry.path, entry.mode, entry.size)


def _differs(entry: Entry, node: Node, *, owners: bool) -> bool:
    old = entry_of(entry.path, *node.parts[0])
    if entry.mode != old.mode or (owners and (entry.uid, entry.gid) != (old.uid, old.gid)):
        return True
    if entry.is_directory:
        return False
    facts = (entry.size, entry.rdev, entry.target, entry.mtime_ns // 1_000_000_000)
    return facts != (old.size, old.rdev, old.target, old.mtime_ns // 1_000_000_000)
