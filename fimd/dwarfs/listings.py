"""What a reader of directories will ask for next, decoded while it works on the last reply.

Most programs that list a tree (find, tar, cp, du, ls -R) go into the subdirectories of a directory
in the order in which they were told of them. Where one does, the next directory is decoded before
it is asked for; where one does not, it is left alone until it does.
"""

import contextlib
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final

from fimd.dwarfs.tree import Attributes

_PREPARED: Final = 256  # entries: more would keep other requests waiting for a millisecond
_REMEMBERED: Final = 4096  # directories

Entry = tuple[bytes, Attributes]


class Listings:
    """Lists directories by `listing(directory, start)`, which gives the entries from a number on.

    All of it is of one mount, however many read it: who disturbs the others' order makes them
    wait for the decoding, nothing more.
    """

    def __init__(self, listing: Callable[[int, int], Iterator[Entry]]) -> None:
        self._listing = listing
        self._next: tuple[int, int] | None = None  # directory and first entry of what to prepare
        self._prepared: tuple[int, int, list[Entry]] = (0, 0, [])  # the same with the entries
        self._found: list[int] = []  # the subdirectories of the directory that is being read
        self._ahead: list[int] = []  # the directories that are not read yet, the next one last
        self._in_order = True

    def opened(self, directory: int) -> None:
        """Note that a directory is going to be read."""
        self._in_order = bool(self._ahead) and self._ahead[-1] == directory
        if self._in_order:
            self._ahead.pop()
        else:
            self._ahead.clear()
        if not self._at_hand(directory, 0):
            self._next = directory, 0

    def entries(self, directory: int, start: int) -> Iterable[Entry]:
        """The entries of a directory from number `start` on."""
        prepared = self._at_hand(directory, start) or []
        return chain(prepared, self._listing(directory, start + len(prepared)))

    def replied(self, directory: int, start: int, facts: list[Attributes], *, full: bool) -> None:
        """Note the entries of a reply, and whether there was no room for more."""
        end = start + len(facts)
        if not start:
            self._found = []
        if len(self._found) < _REMEMBERED:
            self._found += [entry.inode for entry in facts if stat.S_ISDIR(entry.mode)]
        if full:
            if not self._at_hand(directory, end):
                self._next = directory, end
        elif not facts:  # readers ask until there is nothing, and work on what they have then
            self._ahead += self._found[::-1]
            del self._ahead[:-_REMEMBERED], self._found[:]
            if self._ahead and self._in_order:
                self._next = self._ahead[-1], 0

    def prepare(self) -> None:
        """Decode what comes next, where anything is expected."""
        if self._next is None:
            return
        directory, start = self._next
        self._next = None
        with contextlib.suppress(Exception):  # the reader will be told when it asks
            entries = list(islice(self._listing(directory, start), _PREPARED))
            self._prepared = directory, start, entries

    def _at_hand(self, directory: int, start: int) -> list[Entry] | None:
        """What is decoded already, from an entry on."""
        prepared, first, entries = self._prepared
        if directory != prepared or not first <= start < first + len(entries):
            return None
        return entries[start - first :] if start > first else entries
