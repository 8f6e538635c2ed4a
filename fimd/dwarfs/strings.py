"""Names and link targets: plain lists of strings, or one buffer with an index, maybe compressed."""

from collections.abc import Callable
from functools import cached_property
from itertools import accumulate
from typing import Final

from fimd.dwarfs import fsst
from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.frozen import Frozen, Items, Numbers, View, number_reader

MAX_NAME: Final = 512  # stored bytes; FSST may double the 255 that a name can have
MAX_TARGET: Final = 4096


class StringTable:
    """Strings by number, each decoded when it is asked for."""

    def __init__(self, frozen: Frozen, compact: View | None, plain: Items) -> None:
        self._data = frozen.data
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
            self._decode = fsst.decoder(symbols.string(2))
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
            return list(accumulate(self._index.unpack(), initial=0))
        return self._index

    def plain_range(self, number: int) -> tuple[int, int]:
        """Where a string of a plain table is in the metadata: start and size."""
        assert self._plain_range is not None
        return self._plain_range(number)

    def stored(self, number: int) -> bytes:
        """A string as it is stored."""
        if self._plain_range is not None:
            start, size = self._plain_range(number)
            return self._data[start : start + size]
        if not 0 <= number < self.count:
            raise DamagedError(f"string {number} of a table of {self.count}")
        first, last = self.bounds[number], self.bounds[number + 1]
        if not first <= last <= self.size:
            raise DamagedError(f"string {number} lies outside of its table")
        return self._data[self._start + first : self._start + last]

    def __getitem__(self, number: int) -> bytes:
        """A string as it is meant."""
        return self.reader(number)

    @cached_property
    def reader(self) -> Callable[[int], bytes]:
        """What gives a string as it is meant: a closure, for listings wait for it."""
        stored, decode = self.stored, self._decode
        if decode is None:
            return stored
        if self._plain_range is not None:
            return lambda number: decode(stored(number))
        data, start, size, count = self._data, self._start, self.size, self.count
        bound = number_reader(self.bounds)

        def read(number: int) -> bytes:
            if not 0 <= number < count:
                raise DamagedError(f"string {number} of a table of {count}")
            first, last = bound(number), bound(number + 1)
            if not first <= last <= size:
                raise DamagedError(f"string {number} lies outside of its table")
            return decode(data[start + first : start + last])

        return read
