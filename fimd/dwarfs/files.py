"""From a range of a file to the pieces of blocks that hold it."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from fimd.dwarfs.tree import Extent


class FileMap:
    """Where the bytes of one file are.

    Attributes:
        size: bytes of the file.
        extents: its pieces in order, none of them empty.
    """

    __slots__ = ("__weakref__", "_starts", "extents", "size")

    def __init__(self, extents: Sequence[Extent]) -> None:
        self.extents = extents
        if len(extents) == 1:  # most files
            self._starts = [0]
            self.size = extents[0].size
            return
        self._starts = list(accumulate((extent.size for extent in extents), initial=0))
        self.size = self._starts.pop()

    def pieces(self, offset: int, size: int) -> list[tuple[int, int, int]]:
        """The pieces of the range, which is cut at the file's end: block, offset in it, size."""
        if len(self.extents) == 1:
            block, start, length = self.extents[0]
            length = min(size, length - offset)
            return [(block, start + offset, length)] if length > 0 else []
        end = min(offset + size, self.size)
        pieces = []
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            block, start, length = self.extents[index]
            skipped = offset - self._starts[index]
            length = min(length - skipped, end - offset)
            pieces.append((block, start + skipped, length))
            offset += length
            index += 1
        return pieces

    def following_blocks(self, offset: int, count: int) -> list[int]:
        """The next blocks, `count` at most, that reading on from `offset` will need."""
        index = bisect_right(self._starts, offset) - 1
        blocks: list[int] = []
        # a block may come in many pieces: look a bounded way ahead
        for extent in self.extents[index : index + 1024]:
            if extent.block >= 0 and extent.block not in blocks:
                blocks.append(extent.block)
                if len(blocks) > count:
                    break
        return blocks[1:]
