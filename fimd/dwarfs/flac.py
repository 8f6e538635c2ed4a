"""FLAC, for the blocks that hold a sound file's samples.

Source: RFC 9639. Decoding in Python does about half a million samples a second: enough to open a
layer that holds some sound. The section's own checksums stand for FLAC's.
"""

import sys
from array import array
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import Final

from fimd.dwarfs.errors import DamagedError

_STREAM_MARK: Final = b"fLaC"
_BIG_ENDIAN: Final = 0x80
_SIGNED: Final = 0x40
_LOW_PADDING: Final = 0x20
_PIECE: Final = 1 << 14  # bytes
_SAMPLE_SIZES: Final = (0, 8, 12, 0, 16, 20, 24, 32)
_LEFT_SIDE, _SIDE_RIGHT, _MID_SIDE = 8, 9, 10


def decompress(data: bytes, position: int, size: int, header: dict[int, int]) -> memoryview:
    """The `size` bytes of samples that the FLAC stream at `position` of `data` holds.

    `header` is the flac_block_header by field number; it says how samples lie in the bytes that
    are wanted. Raises DamagedError.
    """
    channels, bits, flags = (header.get(field, 0) for field in (1, 2, 3))
    sample_bytes = (flags & 3) + 1
    if (
        not 1 <= channels <= 8
        or not 4 <= bits <= 8 * sample_bytes
        or size % (channels * sample_bytes)
    ):
        raise DamagedError("FLAC: the block's header is invalid")
    reader = _Bits(data, _skip_metadata(data, position))
    left = size // channels // sample_bytes
    bias = 0 if flags & _SIGNED else 1 << bits - 1
    shift = 8 * sample_bytes - bits if flags & _LOW_PADDING else 0
    form = _Form(sample_bytes, bool(flags & _BIG_ENDIAN), bias, shift)
    decoded = bytearray()
    while left:
        count, planes = _frame(reader, channels, bits)
        if count > left:
            raise DamagedError("FLAC: there are more samples than bytes for them")
        left -= count
        decoded += form.interleave(planes) * (count // len(planes[0]))
    return memoryview(decoded).toreadonly()


@dataclass(frozen=True, slots=True)
class _Form:
    """How a sample lies in its bytes: it is added `bias` to, and shifted to the left by `shift`."""

    size: int
    big_endian: bool
    bias: int
    shift: int

    def interleave(self, planes: list[list[int]]) -> bytearray:
        """The bytes of the samples of all channels."""
        bias, shift, mask = self.bias, self.shift, (1 << 8 * self.size) - 1
        stride = len(planes) * self.size
        mixed = bytearray(stride * len(planes[0]))
        for channel, plane in enumerate(planes):
            numbers = array("I", [sample + bias << shift & mask for sample in plane])
            if sys.byteorder == "big":
                numbers.byteswap()
            packed = numbers.tobytes()
            for byte in range(self.size):
                place = self.size - 1 - byte if self.big_endian else byte
                mixed[channel * self.size + place :: stride] = packed[byte :: numbers.itemsize]
        return mixed


def _skip_metadata(data: bytes, position: int) -> int:
    """Where the first frame begins."""
    if data[position : position + 4] != _STREAM_MARK:
        raise DamagedError("FLAC: no stream begins here")
    position += 4
    while position + 4 <= len(data):
        last = data[position] & 0x80
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
        if last:
            return position
    raise DamagedError("FLAC: the stream ends in its metadata")


def _frame(reader: "_Bits", channels: int, bits: int) -> tuple[int, list[list[int]]]:
    """How many samples each channel of a frame has, and these; one, where all of them are equal."""
    start = reader.peek(16)
    if len(start) < 6 or start[0] != 0xFF or start[1] & 0xFE != 0xF8:
        raise DamagedError("FLAC: no frame begins here")
    size_code, rate_code = start[2] >> 4, start[2] & 15
    assignment, sample_size = start[3] >> 4, _SAMPLE_SIZES[start[3] >> 1 & 7]
    at = 4 + _coded_number_size(start[4])
    count, at = _block_size(start, size_code, at)
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0) + 1  # the sample rate, the header's checksum
    frame_channels = 2 if assignment >= _LEFT_SIDE else assignment + 1
    if frame_channels != channels or sample_size not in (0, bits) or assignment > _MID_SIDE:
        raise DamagedError("FLAC: a frame is not of the block's kind")
    reader.take(8 * at)
    planes = []
    for channel in range(channels):
        is_side = (assignment, channel) in ((_LEFT_SIDE, 1), (_SIDE_RIGHT, 0), (_MID_SIDE, 1))
        planes.append(_subframe(reader, count, bits + is_side))
    if any(len(plane) > 1 for plane in planes):
        planes = [plane if len(plane) > 1 else plane * count for plane in planes]
    if assignment >= _LEFT_SIDE:
        planes = _to_left_right(assignment, *planes)
    reader.finish_byte()
    reader.take(16)  # the frame's checksum
    return count, planes


def _coded_number_size(first: int) -> int:
    """Bytes of the frame's number, which is coded like UTF-8."""
    ones = 8 - (first ^ 0xFF).bit_length()
    return ones or 1


def _block_size(start: bytes, code: int, at: int) -> tuple[int, int]:
    """Samples of the frame per channel, and where the header goes on."""
    if code == 1:
        return 192, at
    if 2 <= code <= 5:
        return 576 << code - 2, at
    if code == 6:
        return int.from_bytes(start[at : at + 1], "big") + 1, at + 1
    if code == 7:
        return int.from_bytes(start[at : at + 2], "big") + 1, at + 2
    if code >= 8:
        return 256 << code - 8, at
    raise DamagedError("FLAC: a frame has no size")


def _to_left_right(assignment: int, first: list[int], second: list[int]) -> list[list[int]]:
    pairs = zip(first, second, strict=True)
    if assignment == _LEFT_SIDE:
        return [first, [left - side for left, side in pairs]]
    if assignment == _SIDE_RIGHT:
        return [[side + right for side, right in pairs], second]
    left = [(middle << 1 | side & 1) + side >> 1 for middle, side in pairs]
    return [left, [sample - side for sample, side in zip(left, second, strict=True)]]


class _Bits:
    """Bits as a text of 0 and 1: finding the next 1 in it is one call, however far it is.

    The text is made a piece at a time, and begins where a byte does.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._next = start
        self._text = ""
        self._position = 0

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer at the end, at the beginning of a byte."""
        start = self._next - (len(self._text) - self._position) // 8
        return self._data[start : start + count]

    def finish_byte(self) -> None:
        """Leave the rest of a byte that has been begun."""
        self._position = -(-self._position // 8) * 8

    def take(self, count: int) -> int:
        """An unsigned number."""
        if not count:
            return 0
        while self._position + count > len(self._text):
            self._refill()
        start = self._position
        self._position += count
        return int(self._text[start : self._position], 2)

    def signed(self, count: int) -> int:
        """A number in two's complement."""
        value = self.take(count)
        return value - (value >> count - 1 << count) if count else 0

    def zeros(self) -> int:
        """How many zeros come before the next 1, which is taken too."""
        passed = 0
        while (one := self._text.find("1", self._position)) < 0:
            passed += len(self._text) - self._position
            self._position = len(self._text)
            self._refill()
        passed += one - self._position
        self._position = one + 1
        return passed

    def rice(self, count: int, width: int) -> list[int]:
        """So many Rice-coded signed numbers with `width` low bits."""
        text, position = self._text, self._position
        numbers = []
        for _ in range(count):
            one = text.find("1", position)
            end = one + 1 + width
            if one < 0 or end > len(text):
                self._position = position
                value = self.zeros() << width | self.take(width)
                text, position = self._text, self._position
            else:
                value = one - position
                if width:
                    value = value << width | int(text[one + 1 : end], 2)
                position = end
            numbers.append((value >> 1) ^ -(value & 1))
        self._position = position
        return numbers

    def _refill(self) -> None:
        """Add to the text, and leave away the bytes that are done."""
        piece = self._data[self._next : self._next + _PIECE]
        if not piece:
            raise DamagedError("FLAC: the stream ends too early")
        self._next += len(piece)
        done = self._position // 8 * 8
        added = bin(int.from_bytes(piece, "big") | 1 << 8 * len(piece))[3:]
        self._text = self._text[done:] + added
        self._position -= done


def _subframe(reader: _Bits, count: int, bits: int) -> list[int]:
    """The samples of one channel; one, where all of them are equal."""
    kind = reader.take(7)  # a 0 and six bits of type
    wasted = reader.zeros() + 1 if reader.take(1) else 0
    bits -= wasted
    if bits <= 0:
        raise DamagedError("FLAC: a subframe wastes all its bits")
    if kind == 0:
        samples = [reader.signed(bits)]
    elif kind == 1:
        samples = [reader.signed(bits) for _ in range(count)]
    elif 8 <= kind <= 12:
        samples = _fixed(reader, count, bits, kind - 8)
    elif 32 <= kind <= 63:
        samples = _linear(reader, count, bits, kind - 31)
    else:
        raise DamagedError(f"FLAC: unknown subframe type {kind}")
    return [sample << wasted for sample in samples] if wasted else samples


def _fixed(reader: _Bits, count: int, bits: int, order: int) -> list[int]:
    """Samples of which the differences of `order` are stored."""
    warm_up = [reader.signed(bits) for _ in range(order)]
    differences = _residual(reader, count, order)
    # summing up starts from the last difference of each lower order
    starts = []
    lower = warm_up
    while lower:
        starts.append(lower[-1])
        lower = [later - earlier for earlier, later in pairwise(lower)]
    samples = differences
    for start in reversed(starts):
        samples = list(accumulate(samples, initial=start))[1:]
    return warm_up + samples


def _linear(reader: _Bits, count: int, bits: int, order: int) -> list[int]:
    """Samples predicted from the `order` ones before."""
    samples = [reader.signed(bits) for _ in range(order)]
    precision = reader.take(4) + 1
    shift = reader.signed(5)
    if precision == 16 or shift < 0:
        raise DamagedError("FLAC: invalid predictor")
    coefficients = [reader.signed(precision) for _ in range(order)][::-1]
    for index, error in enumerate(_residual(reader, count, order)):
        predicted = sum(map(mul, coefficients, samples[index : index + order])) >> shift
        samples.append(predicted + error)
    return samples


def _residual(reader: _Bits, count: int, order: int) -> list[int]:
    """What the predictor of `order` missed, for the samples after the first `order` ones."""
    method = reader.take(2)
    if method > 1:
        raise DamagedError("FLAC: unknown residual coding")
    parameter_bits = 4 + method
    partitions = 1 << reader.take(4)
    size = count // partitions
    if size * partitions != count or size < order:
        raise DamagedError("FLAC: invalid partition order")
    numbers: list[int] = []
    for partition in range(partitions):
        wanted = size if partition else size - order
        parameter = reader.take(parameter_bits)
        if parameter == (1 << parameter_bits) - 1:
            width = reader.take(5)
            if not width:  # no encoder writes it: what needs no bits is a constant
                raise DamagedError("FLAC: there are samples without bits")
            numbers += [reader.signed(width) for _ in range(wanted)]
        else:
            numbers += reader.rice(wanted, parameter)
    return numbers
