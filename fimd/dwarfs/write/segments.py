"""Finding in earlier data what a file repeats, and cutting the rest into blocks.

Places are remembered by content: where the hash of eight bytes is large enough, about once in
`spacing` bytes, a fingerprint of what follows is kept. The same content brings the same places, so
looking up only there finds a repetition at any distance and alignment; comparing the bytes then
says how far it reaches, in both directions. All of the work on single bytes is numpy's.
"""

from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from fimd.dwarfs.write.kinds import Kind
from fimd.dwarfs.write.levels import Level

UNIT: Final = 1 << 20
"""Bytes that `Segmenter.add` works on at once, at most."""

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio
_FINGERPRINT_DIVISOR: Final = 4  # a fingerprint covers this part of the least segment
_GAP_DIVISOR: Final = 4  # data with the same eight bytes all over would fill the memory with places
_COMPARED_AT_ONCE: Final = 1 << 16


@dataclass(slots=True)
class Chunks:
    """Where data was put: columns of one row for each chunk."""

    blocks: "array[int]" = field(default_factory=lambda: array("Q"))
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    sizes: "array[int]" = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.blocks)

    def append(self, block: int, offset: int, size: int) -> None:
        """Add a chunk that continues no other."""
        self.blocks.append(block)
        self.offsets.append(offset)
        self.sizes.append(size)

    def extend(self, block: int, offset: int, size: int, since: int) -> None:
        """Add a chunk, or lengthen the last, if it is not older than chunk `since`."""
        if (
            len(self.blocks) > since
            and self.blocks[-1] == block
            and self.offsets[-1] + self.sizes[-1] == offset
        ):
            self.sizes[-1] += size
        else:
            self.append(block, offset, size)


@dataclass(slots=True)
class Block:
    """A block while it is filled, and while segments are looked for in it."""

    number: int
    data: npt.NDArray[np.uint8]  # of its full size, which takes no memory before it is filled
    fill: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)  # bytes of each
    fingerprints: list[int] = field(default_factory=list)

    @property
    def content(self) -> memoryview:
        """What it holds."""
        return self.data[: self.fill].data

    @property
    def kind(self) -> Kind:
        """What it mostly holds."""
        return max(self.kinds, key=lambda kind: (self.kinds[kind], -kind), default=Kind.OTHER)


class Segmenter:
    """Puts files' content into blocks, and remembers where.

    `emit` receives each block when it is full; its data does not change any more.
    """

    def __init__(self, level: Level, emit: Callable[[Block], None]) -> None:
        self._segments = level.segments
        self._spacing = level.spacing
        self._covered = level.segments // _FINGERPRINT_DIVISOR
        self._gap = level.spacing // _GAP_DIVISOR
        self._emit = emit
        self._block_size = level.block_size
        self._past: deque[Block] = deque()
        self._lookback = level.lookback
        self._blocks: dict[int, Block] = {}  # where segments can be found, by number
        self._places: dict[int, tuple[int, int]] = {}  # fingerprint: block, offset
        self._current: Block | None = None
        self._since = 0
        self._kind = Kind.OTHER
        self._scratch = np.empty(UNIT // 8, np.uint64)
        self.block_count = 0
        self.chunks = Chunks()
        self.repeated = 0  # bytes found in earlier data

    def start_file(self, kind: Kind) -> None:
        """What is added from now on belongs to another file.

        Kinds do not share a block, unless little has come of the one before: so that a block can
        have the filter made for its kind.
        """
        block = self._current
        if kind != self._kind and block is not None and block.fill > self._block_size // 16:
            self.finish()
        self._kind = kind
        self._since = len(self.chunks)

    def add_hole(self, block: int, size: int) -> None:
        """Add a hole to the file, with the number that stands for one."""
        self.chunks.append(block, 0, size)

    def add(self, data: memoryview) -> None:
        """Add up to `UNIT` bytes to the file."""
        if not self._segments or len(data) < self._segments:
            self._store(data, [])
            return
        unit = bytes(data)
        stored = 0  # up to here the unit is in blocks
        pending: list[tuple[int, int]] = []  # place and fingerprint of what is not
        ahead: set[int] = set()
        last_place = len(unit) - self._covered
        nearest = 0
        for place in self._marks(unit):
            if place < stored or place < nearest:
                continue
            if place > last_place:
                break
            nearest = place + self._gap
            fingerprint = xxh3_64_intdigest(unit[place : place + self._covered])
            if fingerprint in ahead:  # repeats what is still to be stored
                self._store(memoryview(unit)[stored:place], pending, stored)
                stored = place
                pending, ahead = [], set()
            found = self._places.get(fingerprint)
            match = self._match(unit, stored, place, *found) if found is not None else None
            if match is None:
                pending.append((place, fingerprint))
                ahead.add(fingerprint)
                continue
            start, size, block, offset = match
            self._store(memoryview(unit)[stored:start], pending, stored)
            self.chunks.extend(block, offset, size, self._since)
            self.repeated += size
            stored = start + size
            pending, ahead = [], set()
        self._store(memoryview(unit)[stored:], pending, stored)

    def finish(self) -> None:
        """Emit the block that is being filled, if there is one."""
        block = self._current
        if block is None:
            return
        self._current = None
        if self._segments:
            self._past.append(block)
            if len(self._past) > self._lookback:
                self._forget(self._past.popleft())
        self._emit(block)

    def _forget(self, block: Block) -> None:
        del self._blocks[block.number]
        for fingerprint in block.fingerprints:
            if self._places.get(fingerprint, (-1, 0))[0] == block.number:
                del self._places[fingerprint]

    def _marks(self, unit: bytes) -> list[int]:
        """The places in a unit that are remembered or looked up, in order."""
        threshold = np.uint64((1 << 64) - (1 << 64) // self._spacing)
        found = []
        for shift in range(8):
            count = (len(unit) - shift) // 8
            hashes = self._scratch[:count]
            hashes[:] = np.ndarray((count,), "<u8", unit, shift)
            np.multiply(hashes, _MULTIPLIER, out=hashes)
            found.append(np.flatnonzero(hashes >= threshold) * 8 + shift)
        places = np.concatenate(found)
        places.sort()
        marks: list[int] = places.tolist()
        return marks

    def _match(
        self, unit: bytes, stored: int, place: int, block_number: int, offset: int
    ) -> tuple[int, int, int, int] | None:
        """The repetition around a place: its start in the unit, size, block and offset there."""
        block = self._blocks[block_number]
        here = np.frombuffer(unit, np.uint8)
        there = block.data[: block.fill]
        size = _common(here[place:], there[offset:])
        if size < self._covered:
            return None
        before = _common(here[stored:place][::-1], there[:offset][::-1])
        if before + size < self._segments:
            return None
        return place - before, before + size, block_number, offset - before

    def _store(self, data: memoryview, pending: list[tuple[int, int]], base: int = 0) -> None:
        """Copy data into blocks; remember the places in it, which count from `base`."""
        source = np.frombuffer(data, np.uint8)
        position = 0
        marks = iter(pending)
        mark = next(marks, None)
        while position < len(data):
            block = self._current or self._new_block()
            size = min(len(data) - position, self._block_size - block.fill)
            block.data[block.fill : block.fill + size] = source[position : position + size]
            while mark is not None and mark[0] - base < position + size:
                place = mark[0] - base - position
                if place + self._covered <= size:
                    self._places[mark[1]] = (block.number, block.fill + place)
                    block.fingerprints.append(mark[1])
                mark = next(marks, None)
            self.chunks.extend(block.number, block.fill, size, self._since)
            block.kinds[self._kind] += size
            block.fill += size
            position += size
            if block.fill == self._block_size:
                self.finish()

    def _new_block(self) -> Block:
        block = Block(self.block_count, np.empty(self._block_size, np.uint8))
        self.block_count += 1
        self._current = block
        if self._segments:
            self._blocks[block.number] = block
        return block


def _common(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    """How many bytes at their starts are the same."""
    length = min(len(one), len(other))
    for start in range(0, length, _COMPARED_AT_ONCE):
        end = min(start + _COMPARED_AT_ONCE, length)
        differs = one[start:end] != other[start:end]
        first = int(differs.argmax())
        if differs[first]:
            return start + first
    return length
