"""The directories of several layers, looked at together as each has them: none hides another's."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.reader import Image

Part = tuple[int, int]
"""What one layer has of a directory: the layer's number, and the inode."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The names that one layer has in a directory, with their inodes."""

    number: int
    image: Image
    names: dict[bytes, int]

    def directory(self, name: bytes) -> Part | None:
        """What the layer has of a directory of this name, None where it has none."""
        inode = self.names.get(name)
        if inode is None or not self.image.tree.is_directory(inode):
            return None
        return self.number, inode


class Walk:
    """Yields path and listings of each directory that is entered, also of those entered meanwhile.

    A layer's metadata may lead from a directory back to itself. But each entry is in one
    directory, so who comes to more of them than the layer has gets DamagedError.
    """

    def __init__(self, layers: Sequence[Image]) -> None:
        """`layers` are numbered as they stand here, and stay the caller's."""
        self._layers = layers
        self._left = [image.metadata.entry_count for image in layers]
        self._pending: list[tuple[bytes, list[Part]]] = []

    def enter(self, path: bytes, parts: Iterable[Part | None]) -> None:
        """Have a directory looked at. Its listings come in the order of its parts, without None."""
        self._pending.append((path, [part for part in parts if part is not None]))

    def __iter__(self) -> Iterator[tuple[bytes, list[Listing]]]:
        while self._pending:
            path, parts = self._pending.pop()
            yield path, [self._list(*part) for part in parts]

    def _list(self, number: int, inode: int) -> Listing:
        image = self._layers[number]
        entries = image.readdir(inode)
        self._left[number] -= len(entries)
        if self._left[number] < 0:
            raise DamagedError("directories share their entries", path=image.source.name)
        return Listing(number, image, dict(entries))
