"""FSST: strings compressed by a table of up to 255 symbols of one to eight bytes.

Source: Boncz, Neumann, Leis: FSST, PVLDB 13 (2020); the table's layout is cwida/fsst's export.
"""

from collections.abc import Callable
from typing import Final

from fimd.dwarfs.errors import DamagedError

VERSION: Final = 20190218
HEADER_SIZE: Final = 17
ESCAPE: Final = 255
_LONGEST_SYMBOL: Final = 8


def decoder(table: bytes, longest: int) -> Callable[[bytes], bytes]:
    """The function that decompresses one string, to `longest` bytes at most, by a symbol table."""
    symbols = _symbols(table)

    def decode(data: bytes) -> bytes:
        try:
            if ESCAPE not in data:
                text = b"".join([symbols[code] for code in data])
            else:
                codes = iter(data)
                text = b"".join(
                    [bytes([next(codes)]) if code == ESCAPE else symbols[code] for code in codes]
                )
        except (IndexError, StopIteration):
            raise DamagedError("a compressed string has a code that its table lacks") from None
        if len(text) > longest:
            raise DamagedError(f"a compressed string has {len(text)} bytes")
        return text

    return decode


def _symbols(table: bytes) -> list[bytes]:
    if len(table) < HEADER_SIZE or table[0] != 1:
        raise DamagedError("the string table's symbol table is damaged")
    if int.from_bytes(table[4:8], "little") != VERSION:
        raise DamagedError("the string table's symbol table has an unknown version")
    zero_terminated = table[8] & 1
    counts = list(table[9:HEADER_SIZE])
    symbols = []
    if zero_terminated:
        symbols.append(b"\0")  # implied, not stored, but counted
        if not counts[0]:
            raise DamagedError("the string table's symbol table is damaged")
        counts[0] -= 1
    position = HEADER_SIZE
    for length in [*range(2, _LONGEST_SYMBOL + 1), 1]:
        for _ in range(counts[length - 1]):
            symbols.append(table[position : position + length])
            position += length
    if position != len(table) or len(symbols) > ESCAPE or table[1] != len(symbols):
        raise DamagedError(
            f"the symbol table has {len(table)} bytes, its symbols need {position}"
            f" ({len(symbols)} of {table[1]})"
        )
    return symbols
