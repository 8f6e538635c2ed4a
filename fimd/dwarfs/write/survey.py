"""Which files hold the same, and in which order their contents are best stored.

Equal contents are found by a hash of files of equal size, keyed anew in each run, so that nobody
can prepare two files that collide. Likeness is found by min-hashing (Broder 1997): two files share
the least of a permuted set of hashes as often as their eight-byte windows are the same.
"""

import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from xxhash import xxh3_128

from fimd.dwarfs.write.entries import Entry, ReadContent, checked
from fimd.dwarfs.write.kinds import Kind, kind_of
from fimd.dwarfs.write.levels import Order
from fimd.dwarfs.write.tree import Tree

_SKETCHED: Final = 1 << 14  # bytes at the start of a file that say what it is like
_LEAST_SKETCHED: Final = 256
_WINDOW: Final = 8
_ALIKE: Final = 2  # features in common; one alone brings together what is better left in its place
_MULTIPLIERS: Final = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64
)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the regular files hold.

    Attributes:
        of_inode: for each inode of the tree the number of its content, -1 where it is no file.
        entries: for each content an entry to read it from.
        kinds: for each content what it is.
        order: the contents' numbers in the order in which to store them.
    """

    of_inode: list[int]
    entries: list[Entry]
    kinds: list[Kind]
    order: list[int]


def survey(tree: Tree, read: ReadContent, order: Order, tick: Callable[[int], None]) -> Survey:
    """Look at every file that has to be looked at; `tick` is told how many bytes were read."""
    inodes = tree.files()
    entries = {inode: tree.entries[tree.firsts[inode]] for inode in inodes}
    same_size = Counter(entry.size for entry in entries.values())
    similar = order is Order.SIMILARITY
    key = secrets.randbits(64)
    found = _Found()
    of_inode = [-1] * len(tree.firsts)
    for inode, entry in entries.items():
        twin = entry.size > 0 and same_size[entry.size] > 1
        identity: object = inode
        start = b""
        if not entry.size:
            identity = b""
        elif twin:
            identity, start = _digest(entry, read, key, tick)
        elif similar:
            start = _start(entry, read, tick)
        of_inode[inode] = found.add(identity, entry, start, similar=similar)
    return Survey(of_inode, found.entries, found.kinds, found.ordered(order))


class _Found:
    """The contents found so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.kinds: list[Kind] = []
        self._groups: list[int] = []  # for each content the first that it is like
        self._numbers: dict[object, int] = {}
        self._alike: dict[tuple[int, int], int] = {}

    def add(self, identity: object, entry: Entry, start: bytes, *, similar: bool) -> int:
        number = self._numbers.setdefault(identity, len(self.entries))
        if number == len(self.entries):
            self.entries.append(entry)
            self.kinds.append(kind_of(start) if similar else Kind.OTHER)
            self._groups.append(self._group(start, number) if similar else number)
        return number

    def ordered(self, order: Order) -> list[int]:
        numbers = range(len(self.entries))
        if order is not Order.SIMILARITY:
            return list(numbers)
        return sorted(numbers, key=lambda number: (self.kinds[number], self._groups[number]))

    def _group(self, start: bytes, number: int) -> int:
        """The group that is most like this content, else one of its own."""
        if len(start) < _LEAST_SKETCHED:
            return number
        features = list(enumerate(_sketch(start)))
        groups = Counter(self._alike[feature] for feature in features if feature in self._alike)
        group = min(groups, key=lambda group: (-groups[group], group), default=number)
        if groups[group] < _ALIKE:
            group = number
        for feature in features:
            self._alike.setdefault(feature, group)
        return group


def _sketch(start: bytes) -> list[int]:
    count = len(start) - _WINDOW + 1
    windows = np.ndarray((count,), "<u8", start, strides=(1,)).copy()
    windows ^= windows >> np.uint64(29)  # lets the low bytes decide too
    return [int((windows * multiplier).max()) for multiplier in _MULTIPLIERS]


def _start(entry: Entry, read: ReadContent, tick: Callable[[int], None]) -> bytes:
    with closing(checked(entry, read)) as pieces:
        for piece in pieces:
            if not isinstance(piece, int):
                tick(len(piece))
                return bytes(piece[:_SKETCHED])
    return b""


def _digest(
    entry: Entry, read: ReadContent, key: int, tick: Callable[[int], None]
) -> tuple[object, bytes]:
    """What is equal for equal contents only, and how the content starts."""
    digest = xxh3_128(seed=key)
    start = b""
    holes = []
    position = 0
    for piece in checked(entry, read):
        if isinstance(piece, int):
            holes.append((position, piece))
            position += piece
            continue
        digest.update(piece)
        start = start or bytes(piece[:_SKETCHED])
        position += len(piece)
        tick(len(piece))
    return (entry.size, tuple(holes), digest.digest()), start
