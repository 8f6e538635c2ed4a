"""Names and link targets: plain lists of strings, or one buffer with an index, maybe compressed."""

from array import array
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Final

from fimd.dwarfs import fsst
from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.frozen import Frozen, Items, Numbers, View, number_reader

MAX_NAME: Final = 512  # stored bytes; FSST may double the 255 that a name can have
MAX_TARGET: Final = 4096
"""What the reference accepts, in bytes, of strings as they are stored."""
_REMEMBERED: Final = 4096  # lengths of compressed strings


class StringTable:
    """Strings by number, each decoded when it is asked for; none has more than `longest` bytes."""

    def __init__(self, frozen: Frozen, compact: View | None, plain: Items, longest: int) -> None:
        self._data = frozen.data
        self._longest = longest
        self._plain_range = plain.string_ranges() if compact is None else None
        self._start = 0
        self.packed_index = False
        self._decode: Callable[[bytes], bytes] | None = None
        self.size = 0  # of the buffer, in bytes
        if compact is None:
            self.count = len(plain)
            return
        if len(plain):
            raise DamagedError("there are two tables of the same strings")
        self._start, self.size = compact.string_range(1)
        symbols = compact.optional(2)
        if symbols is not None:
            self._decode = fsst.decoder(symbols.string(2), longest)
        self._index = compact.items(3).numbers()
        self.packed_index = compact.flag(4)
        self.count = len(self._index) if self.packed_index else max(len(self._index) - 1, 0)

    @property
    def is_compact(self) -> bool:
        """Whether the strings lie in one buffer with an index."""
        return self._plain_range is None

    @cached_property
    def bounds(self) -> Numbers:
        """Where each string of a compact table begins in the buffer, and the last one's end."""
        if self.packed_index:
            return array("Q", accumulate(self._index.unpack(), initial=0))
        return self._index

    def plain_range(self, number: int) -> tuple[int, int]:
        """Where a string of a plain table is in the metadata: start and size."""
        assert self._plain_range is not None
        return self._plain_range(number)

    def length(self, number: int) -> int:
        """Bytes of a string as it is meant."""
        if self._decode is not None:
            return self._decoded_length(number)
        first, last = self._range(number)
        return last - first

    @cached_property
    def _decoded_length(self) -> Callable[[int], int]:
        return lru_cache(_REMEMBERED)(lambda number: len(self[number]))

    def _range(self, number: int) -> tuple[int, int]:
        """Where in the metadata a string begins and ends."""
        if self._plain_range is not None:
            start, size = self._plain_range(number)
            first, last = start, start + size
        else:
            if not 0 <= number < self.count:
                raise DamagedError(f"string {number} of a table of {self.count}")
            first, last = self.bounds[number], self.bounds[number + 1]
            if not first <= last <= self.size:
                raise DamagedError(f"string {number} lies outside of its table")
            first, last = self._start + first, self._start + last
        if last - first > self._longest:
            raise DamagedError(f"string {number} has {last - first} bytes")
        return first, last

    def stored(self, number: int) -> bytes:
        """A string as it is stored."""
        first, last = self._range(number)
        return self._data[first:last]

    def __getitem__(self, number: int) -> bytes:
        """A string as it is meant."""
        return self.reader(number)

    @cached_property
    def reader(self) -> Callable[[int], bytes]:
        """What gives a string as it is meant: a closure, for listings wait for it."""
        stored, decode, longest = self.stored, self._decode, self._longest
        if self._plain_range is not None:
            return stored if decode is None else lambda number: decode(stored(number))
        data, start, size, count = self._data, self._start, self.size, self.count
        bound = number_reader(self.bounds)

        def read(number: int) -> bytes:
            if not 0 <= number < count:
                raise DamagedError(f"string {number} of a table of {count}")
            first, last = bound(number), bound(number + 1)
            if not first <= last <= size:
                raise DamagedError(f"string {number} lies outside of its table")
            if last - first > longest:
                raise DamagedError(f"string {number} has {last - first} bytes")
            text = data[start + first : start + last]
            return text if decode is None else decode(text)

        return read
