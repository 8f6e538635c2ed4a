"""The shape of the tree: entries in the image's order, and an inode number for each.

Source: section "Inode numbers" of the format's description: inodes are ranked directories, links,
regular files, devices, the rest; and of the files first those whose content nobody shares.
"""

import stat
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fimd.dwarfs.write.entries import Entry, PackError, printable, sort_key

_LONGEST_NAME: Final = 255
_LONGEST_TARGET: Final = 4096
_RANKS: Final = {
    stat.S_IFDIR: 0,
    stat.S_IFLNK: 1,
    stat.S_IFREG: 2,
    stat.S_IFBLK: 3,
    stat.S_IFCHR: 3,
    stat.S_IFIFO: 4,
    stat.S_IFSOCK: 4,
}
_RANK_FILE: Final = 2
_RANK_SHARED: Final = 2.5


@dataclass(frozen=True, slots=True)
class Tree:
    """Entries that form a tree, and which of them are one inode.

    Attributes:
        entries: sorted, the root first, each directory right before what it holds.
        parents: for each entry the position of its directory's entry; the root's own for the root.
        inodes: for each entry a number of its inode, counted in the entries' order.
        firsts: for each such inode the position of the first entry that names it.
    """

    entries: list[Entry]
    parents: npt.NDArray[np.int64]
    inodes: npt.NDArray[np.int64]
    firsts: list[int]

    def files(self) -> list[int]:
        """The inodes that are regular files."""
        return [number for number, first in enumerate(self.firsts) if self.entries[first].is_file]


def build(entries: Iterable[Entry]) -> Tree:
    """Put entries in order. Raises PackError where they are no tree that an image can hold."""
    ordered = sorted(entries, key=lambda entry: sort_key(entry.path))
    if not ordered or ordered[0].path or not ordered[0].is_directory:
        raise PackError("the tree has no root directory")
    places = {b"": 0}
    parents = np.zeros(len(ordered), np.int64)
    inodes = np.zeros(len(ordered), np.int64)
    firsts = [0]
    numbers: dict[Hashable, int] = {}
    for place, entry in enumerate(ordered[1:], 1):
        directory, _, name = entry.path.rpartition(b"/")
        _check(entry, name)
        if directory not in places:
            raise PackError("lies in what is no directory", path=printable(entry.path))
        if entry.path == ordered[place - 1].path:
            raise PackError("occurs twice", path=printable(entry.path))
        if entry.is_directory:
            places[entry.path] = place
        parents[place] = places[directory]
        if entry.is_file and entry.identity is not None:
            inodes[place] = numbers.setdefault(entry.identity, len(firsts))
        else:
            inodes[place] = len(firsts)
        if inodes[place] == len(firsts):
            firsts.append(place)
    return Tree(ordered, parents, inodes, firsts)


def _check(entry: Entry, name: bytes) -> None:
    fault = ""
    if name in {b"", b".", b".."} or b"\0" in name or len(name) > _LONGEST_NAME:
        fault = "has a name that an image cannot hold"
    elif stat.S_IFMT(entry.mode) not in _RANKS:
        fault = "is of an unknown file type"
    elif stat.S_ISLNK(entry.mode) and (
        not 0 < len(entry.target) <= _LONGEST_TARGET or b"\0" in entry.target
    ):
        fault = "has a target that an image cannot hold"
    if fault:
        raise PackError(fault, path=printable(entry.path))


def rank_inodes(
    tree: Tree, contents: Sequence[int], shared: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """The tree's inodes in the image's order.

    `contents` gives for each inode the number of its content, -1 where it has none; `shared` says
    of each content whether several inodes have it. Inodes that share come together.
    """
    ranks = np.zeros(len(tree.firsts))
    groups = np.zeros(len(tree.firsts), np.int64)
    for inode, (first, content) in enumerate(zip(tree.firsts, contents, strict=True)):
        rank: float = _RANKS[stat.S_IFMT(tree.entries[first].mode)]
        if rank == _RANK_FILE and shared[content]:
            rank = _RANK_SHARED
            groups[inode] = content
        ranks[inode] = rank
    return np.lexsort((np.arange(len(ranks)), groups, ranks))
