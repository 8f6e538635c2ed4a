"""The chain of layers: `u64 length` and that many bytes of DwarFS, again and again to the end.

One bad record does not hide the others: it becomes a fault, and reading goes on at the next record
that is sound. An unfinished append is told from damage, because it may be cut off and damage may
not.
"""

import struct
from dataclasses import dataclass
from typing import Final

from . import scan
from .errors import DamagedImageError
from .file import name_of, read_at, size_of
from .layout import Layout
from .section import HEADER, MAGIC, is_whole, measure, starts_layer

LENGTH: Final = struct.Struct("<Q")
# An append writes these as zeros first, and the length word last.
UNPUBLISHED: Final = LENGTH.size + HEADER.size

MOST_RECORDS: Final = 10_000
MOST_FAULTS: Final = 32


@dataclass(frozen=True, slots=True)
class EmbeddedLayer:
    """A layer in the image file: where its DwarFS bytes begin, and how many there are."""

    offset: int
    size: int

    @property
    def record_offset(self) -> int:
        """Where the layer's length word is."""
        return self.offset - LENGTH.size

    @property
    def end(self) -> int:
        """The offset after the layer's last byte."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Fault:
    """Bytes of the chain that are no sound record.

    `hidden` is the layer that is whole behind a wrong length word, where there is one.
    """

    offset: int
    end: int
    reason: str
    hidden: EmbeddedLayer | None = None

    def __str__(self) -> str:
        return f"at offset {self.offset}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Chain:
    """What an image's chain holds, bottom layer first.

    `torn_offset` is where an append was interrupted: from there to `end`, the end of the file,
    there is nothing that anybody could read.
    """

    end: int
    layers: tuple[EmbeddedLayer, ...] = ()
    faults: tuple[Fault, ...] = ()
    torn_offset: int | None = None


def read_chain(fd: int, layout: Layout) -> Chain:
    """Every sound layer of the open image, and what is wrong with the rest.

    Raises DamagedImageError where so much is wrong that reading on makes no sense.
    """
    return _Reader(fd, size_of(fd)).read(layout.chain_offset)


class _Reader:
    """One reading of a chain; remembers the search for layers, which is made once at most."""

    def __init__(self, fd: int, end: int) -> None:
        self.fd = fd
        self.end = end
        self.found: list[tuple[int, int]] | None = None

    def read(self, start: int) -> Chain:
        layers: list[EmbeddedLayer] = []
        faults: list[Fault] = []
        position = start
        while position < self.end:
            if len(layers) > MOST_RECORDS or len(faults) > MOST_FAULTS:
                raise DamagedImageError(
                    f"{name_of(self.fd)} has {len(layers)} layers and {len(faults)} faults up to "
                    f"offset {position}, which no real image has: copy or download it again"
                )
            layer = self._record(position)
            if layer is not None:
                layers.append(layer)
                position = layer.end
                continue
            fault = self._fault(position)
            if fault.end == self.end and self._is_torn(fault, above=bool(layers)):
                return Chain(self.end, tuple(layers), tuple(faults), torn_offset=position)
            faults.append(fault)
            position = fault.end
        return Chain(self.end, tuple(layers), tuple(faults))

    def _record(self, position: int) -> EmbeddedLayer | None:
        """The layer of the record at `position`, where it is what its length word says."""
        layer = self._linked(position)
        if layer is None:
            return None
        if self._closes(layer.end) or is_whole(self.fd, layer.offset, layer.size):
            return layer
        return None

    def _linked(self, position: int) -> EmbeddedLayer | None:
        word = read_at(self.fd, position, LENGTH.size)
        if len(word) < LENGTH.size:
            return None
        layer = EmbeddedLayer(position + LENGTH.size, LENGTH.unpack(word)[0])
        fits = 0 < layer.size <= self.end - layer.offset
        return layer if fits and starts_layer(self.fd, layer.offset, layer.end) else None

    def _closes(self, position: int) -> bool:
        """Whether a record can end at `position`: the file does, or another record follows."""
        return position == self.end or self._linked(position) is not None

    def _fault(self, position: int) -> Fault:
        """What is wrong with the record at `position`, and where to read on."""
        word = read_at(self.fd, position, LENGTH.size)
        if len(word) < LENGTH.size:
            return Fault(position, self.end, f"{len(word)} bytes are left over")
        length = LENGTH.unpack(word)[0]
        start = position + LENGTH.size

        size = measure(self.fd, start, self.end)
        if size is not None and self._closes(start + size):
            return Fault(
                position,
                start + size,
                f"the length word is {length}, but the layer behind it has {size} bytes",
                EmbeddedLayer(start, size),
            )
        if 0 < length <= self.end - start and self._closes(start + length):
            return Fault(position, start + length, f"{length} bytes that are no DwarFS image")
        if length > self.end - start:
            reason = f"{length} bytes should follow, but the file ends after {self.end - start}"
        else:
            reason = f"neither the length word ({length}) nor what follows it makes sense"
        return Fault(position, self._next_record(position), reason)

    def _next_record(self, position: int) -> int:
        if self.found is None:
            self.found = list(scan.records(self.fd, position + 1, self.end))
        above = [record for record in self.found if record[0] > position]
        if self._looks_interrupted(position):
            # An append that was interrupted may hold an image as contents of a file: only a chain
            # that goes on to the end of the file is this image's own.
            above = scan.last_run(above)
            if above and sum(above[-1]) + LENGTH.size != self.end:
                above = []
        return above[0][0] if above else self.end

    def _looks_interrupted(self, position: int) -> bool:
        """Whether an append seems to have stopped here.

        Ours begins with zeros, FlatImage's with a record that goes past the end of the file.
        """
        head = read_at(self.fd, position, UNPUBLISHED)
        if len(head) < LENGTH.size or not any(head):
            return True
        too_long = LENGTH.unpack_from(head)[0] > self.end - position - LENGTH.size
        return too_long and MAGIC.startswith(head[LENGTH.size : LENGTH.size + len(MAGIC)])

    def _is_torn(self, fault: Fault, *, above: bool) -> bool:
        """Whether the fault, the last thing in the file, may be cut off.

        With nothing below it, what is too short is rather an incomplete download of the base layer,
        which cutting off would not make better.
        """
        if fault.hidden is not None:
            return False
        unnumbered = not any(read_at(self.fd, fault.offset, LENGTH.size))
        return unnumbered or (above and self._looks_interrupted(fault.offset))
