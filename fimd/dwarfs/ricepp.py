"""RICEPP: 16-bit pixels as Rice-coded differences, for the images that FITS files hold.

Source: ricepp of mhx/dwarfs (MIT part), stream version 1. The stream is read from its least
significant bit on; decoding in Python does about a million pixels a second.
"""

from typing import Final, Literal

from fimd.dwarfs.errors import DamagedError, UnsupportedError

_NEWEST_VERSION: Final = 1
_RAW: Final = 15
_LONGEST_NUMBER: Final = (1 << 17) + 16  # bits: no difference of 16-bit pixels takes more
_WINDOW: Final = 1 << 14  # bytes


def decompress(data: bytes, position: int, size: int, header: dict[int, int]) -> memoryview:
    """The `size` bytes that the stream at `position` of `data` holds.

    `header` is the ricepp_block_header by field number. Raises DwarfsError.
    """
    block_size, components = header.get(1, 0), header.get(2, 0)
    unused_bits, big_endian = header.get(4, 0), header.get(5, False)
    if header.get(6, 0) > _NEWEST_VERSION:
        raise UnsupportedError(f"RICEPP version {header[6]} is not known")
    if (
        header.get(3) != 2
        or not 1 <= components <= 2
        or not 16 <= block_size <= 512
        or not 0 <= unused_bits <= 8
        or size % (2 * components)
    ):
        raise DamagedError("RICEPP: the block's header is invalid")
    bits = _Bits(data, position)
    order: Literal["big", "little"] = "big" if big_endian else "little"
    planes = [bytearray() for _ in range(components)]
    lasts = [bits.take(16) for _ in range(components)] if size else []
    left = size // 2 // components
    while left:
        count = min(block_size, left)
        for component, plane in enumerate(planes):
            group, lasts[component] = _group(bits, count, lasts[component], unused_bits, order)
            plane.extend(group)
        left -= count
    if components == 1:
        return memoryview(planes[0]).toreadonly()
    pixels = bytearray(size)
    for component, plane in enumerate(planes):
        pixels[2 * component :: 2 * components] = plane[::2]
        pixels[2 * component + 1 :: 2 * components] = plane[1::2]
    return memoryview(pixels).toreadonly()


def _group(
    bits: "_Bits", count: int, last: int, unused_bits: int, order: Literal["big", "little"]
) -> tuple[bytes, int]:
    """`count` pixels of one component as they are in memory, and the value of the last."""
    kind = bits.take(4)
    if kind == _RAW:  # the bytes themselves, first byte first
        raw = b"".join([bits.take(16).to_bytes(2, "little") for _ in range(count)])
        return raw, int.from_bytes(raw[-2:], order) >> unused_bits
    if kind == 0:
        return (last << unused_bits & 0xFFFF).to_bytes(2, order) * count, last
    values = []
    for difference in bits.rice(count, kind - 1):
        last = last + ((difference >> 1) ^ -(difference & 1)) & 0xFFFF
        values.append((last << unused_bits & 0xFFFF).to_bytes(2, order))
    return b"".join(values), last


class _Bits:
    """Bits from the least significant on, as a text of 0 and 1 read from its right end.

    Text, because finding the next 1 in it is one call, however far it is.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._next = position
        self._text = ""
        self._end = 0  # bits of the text that are left

    def take(self, count: int) -> int:
        while self._end < count:
            self._refill()
        self._end -= count
        return int(self._text[self._end : self._end + count], 2)

    def rice(self, count: int, width: int) -> list[int]:
        """So many numbers: the zeros before a 1, then `width` bits."""
        numbers: list[int] = []
        text, end = self._text, self._end
        while len(numbers) < count:
            one = text.rfind("1", 0, end)
            start = one - width
            if one < 0 or start < 0:
                if end > _LONGEST_NUMBER:
                    raise DamagedError("RICEPP: a number is too long")
                self._end = end
                self._refill()
                text, end = self._text, self._end
                continue
            zeros = end - one - 1
            numbers.append(zeros << width | int(text[start:one], 2) if width else zeros)
            end = start
        self._end = end
        return numbers

    def _refill(self) -> None:
        chunk = self._data[self._next : self._next + _WINDOW]
        if not chunk:
            raise DamagedError("RICEPP: the stream ends too early")
        self._next += len(chunk)
        new = bin(int.from_bytes(chunk, "little") | 1 << 8 * len(chunk))[3:]
        self._text = new + self._text[: self._end]
        self._end = len(self._text)
