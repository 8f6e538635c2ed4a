"""The names of one directory, found in any spelling."""

from collections.abc import Callable, Iterable, Iterator

from fimd.casefold.folding import fold


class NameIndex:
    """Maps a folded name to the spelling that is stored.

    Where several stored names fold alike, one of them is found whatever spelling is asked for,
    and only it is listed: the folded spelling itself (the lower-case one, for almost every
    script) if it is there, else the first in byte order. When it goes, the next takes its place.
    """

    def __init__(self, names: Iterable[bytes], folding: Callable[[bytes], bytes] = fold) -> None:
        self._fold = folding
        self._found: dict[bytes, bytes] = {}
        self._rivals: dict[bytes, set[bytes]] = {}
        for name in names:
            self.add(name)

    def find(self, folded: bytes) -> bytes | None:
        """The stored spelling of a folded name."""
        return self._found.get(folded)

    def add(self, stored: bytes) -> None:
        """Take in a stored name; one that is known already changes nothing."""
        folded = self._fold(stored)
        present = self._found.setdefault(folded, stored)
        if present != stored:
            rivals = self._rivals.setdefault(folded, {present})
            rivals.add(stored)
            self._found[folded] = _preferred(folded, rivals)

    def remove(self, stored: bytes) -> None:
        """Forget a stored name; one that is unknown changes nothing."""
        folded = self._fold(stored)
        rivals = self._rivals.get(folded)
        if rivals is None:
            if self._found.get(folded) == stored:
                del self._found[folded]
            return
        rivals.discard(stored)
        self._found[folded] = _preferred(folded, rivals)
        if len(rivals) == 1:
            del self._rivals[folded]

    def __iter__(self) -> Iterator[bytes]:
        """The stored names that can be found, each once, in the directory's order."""
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def collisions(self) -> list[list[bytes]]:
        """The groups of stored names that fold alike, each with the one that is found first."""
        return [
            sorted(rivals, key=lambda name: (name != self._found[folded], name))
            for folded, rivals in self._rivals.items()
        ]


def _preferred(folded: bytes, rivals: set[bytes]) -> bytes:
    return folded if folded in rivals else min(rivals)
