"""FSST: choosing the symbols that shorten a list of strings most, and encoding with them.

Source: Boncz, Neumann, Leis: FSST, PVLDB 13 (2020); `fimd.dwarfs.fsst` decodes, and describes the
table. A symbol is one to eight bytes; what no symbol covers costs two bytes, an escape and itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fimd.dwarfs.fsst import ESCAPE, VERSION

_MAX_SYMBOLS: Final = 255
_LONGEST_SYMBOL: Final = 8
_ROUNDS: Final = 5
_SAMPLE: Final = 1 << 15  # bytes to choose the symbols by
_SINGLE_BYTE_WEIGHT: Final = 8  # a byte without a symbol doubles: keep the bytes that occur


@dataclass(frozen=True, slots=True)
class Encoded:
    """Strings that decode with `table`."""

    table: bytes
    strings: list[bytes]


def encode(strings: Sequence[bytes]) -> Encoded:
    """Encode strings with symbols chosen for them; the same strings always give the same bytes."""
    symbols = _choose(_sample(strings))
    symbols.sort(key=lambda symbol: (len(symbol) == 1, len(symbol), symbol))
    codes = {symbol: code for code, symbol in enumerate(symbols)}
    by_first = _by_first_byte(symbols)
    return Encoded(_table(symbols), [_encode_one(string, by_first, codes) for string in strings])


def _sample(strings: Sequence[bytes]) -> list[bytes]:
    total = sum(map(len, strings))
    return list(strings[:: max(1, total // _SAMPLE)])


def _choose(sample: list[bytes]) -> list[bytes]:
    symbols: list[bytes] = []
    for _ in range(_ROUNDS):
        by_first = _by_first_byte(symbols)
        gains: Counter[bytes] = Counter()
        for string in sample:
            previous = b""
            for symbol in _split(string, by_first):
                gains[symbol] += len(symbol) if len(symbol) > 1 else _SINGLE_BYTE_WEIGHT
                joined = previous + symbol
                if previous and len(joined) <= _LONGEST_SYMBOL:
                    gains[joined] += len(joined)
                previous = symbol
        best = sorted(gains, key=lambda symbol: (-gains[symbol], symbol))
        symbols = best[:_MAX_SYMBOLS]
    return symbols


def _by_first_byte(symbols: Iterable[bytes]) -> dict[int, tuple[bytes, ...]]:
    """The symbols that begin with a byte, longest first."""
    by_first: dict[int, tuple[bytes, ...]] = {}
    for symbol in sorted(symbols, key=len, reverse=True):
        by_first[symbol[0]] = (*by_first.get(symbol[0], ()), symbol)
    return by_first


def _split(string: bytes, by_first: dict[int, tuple[bytes, ...]]) -> list[bytes]:
    """The string as the longest symbols from left to right, and single bytes where none fits."""
    parts = []
    position = 0
    while position < len(string):
        for symbol in by_first.get(string[position], ()):
            if string.startswith(symbol, position):
                break
        else:
            symbol = string[position : position + 1]
        parts.append(symbol)
        position += len(symbol)
    return parts


def _encode_one(
    string: bytes, by_first: dict[int, tuple[bytes, ...]], codes: dict[bytes, int]
) -> bytes:
    out = bytearray()
    for symbol in _split(string, by_first):
        code = codes.get(symbol)
        if code is None:
            out.append(ESCAPE)
            out += symbol
        else:
            out.append(code)
    return bytes(out)


def _table(symbols: list[bytes]) -> bytes:
    counts = Counter(map(len, symbols))
    return b"".join(
        [
            bytes([1, len(symbols), 0, 0]),
            VERSION.to_bytes(4, "little"),
            b"\0",
            bytes(counts[length] for length in range(1, _LONGEST_SYMBOL + 1)),
            *symbols,
        ]
    )
