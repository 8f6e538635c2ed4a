"""What a layer, or an upper directory, adds to the layers below, changes, and deletes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fimd.dwarfs.write import Entry
from fimd.trees.entries import entry_of
from fimd.trees.merged import Merged, Node, is_whiteout

_UNITS: Final = (2_000_000_000, 1_000_000_000, 10_000_000, 100, 1)
"""Nanoseconds in which times are kept: by FAT, by releases of DwarFS before 0.14, by exFAT and by
NTFS. A copy of a layer's file has the layer's time in one of them, rounded down."""


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
    if (entry.size, entry.rdev, entry.target) != (old.size, old.rdev, old.target):
        return True
    unit = next(unit for unit in _UNITS if entry.mtime_ns % unit == 0)
    return entry.mtime_ns // unit != old.mtime_ns // unit
