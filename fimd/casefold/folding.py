"""Which file names are the same but for case.

Folding is Unicode's simple case folding (statuses C and S of CaseFolding.txt): one character for
one character, no locale, no normalization, so "ß" is not "ss" and "é" is not "e" + accent. Names
are bytes; what is not valid UTF-8 in them stands for itself, and the rest of such a name folds.
"""

from collections.abc import Callable

# Status S since Unicode 15.1: listed here so that every Python folds alike.
_RECENT = {0x1FD3: 0x0390, 0x1FE3: 0x03B0, 0xFB05: 0xFB06}


class _SimpleMapping(dict[int, int]):
    """A table for str.translate that learns its entries as they are asked for."""

    def __init__(self, mapping: Callable[[str], str]) -> None:
        super().__init__()
        self._mapping = mapping

    def __missing__(self, code: int) -> int:
        mapped = ord(self._mapping(chr(code)))
        if mapped != code:  # so the table never holds more than the cased letters
            self[code] = mapped
        return mapped


def _fold_character(character: str) -> str:
    """The simple folding of one character, from Python's full folding.

    Where the full folding has several characters, the simple one is the lower-case letter if
    that is a single character, else the character itself (U+1E9E folds to U+00DF, U+0130 to
    nothing else).
    """
    if recent := _RECENT.get(ord(character)):
        return chr(recent)
    folded = character.casefold()
    return folded if len(folded) == 1 else _lower_character(character)


def _lower_character(character: str) -> str:
    lowered = character.lower()
    return lowered if len(lowered) == 1 else character


_folding = _SimpleMapping(_fold_character)
_lowering = _SimpleMapping(_lower_character)


def fold(name: bytes) -> bytes:
    """What all spellings of one name have in common; folding it again changes nothing."""
    return name.lower() if name.isascii() else _translate(name, _folding)


def lower(name: bytes) -> bytes:
    """The lower-case spelling of a name, by simple mappings; it folds as the name does."""
    return name.lower() if name.isascii() else _translate(name, _lowering)


def _translate(name: bytes, table: _SimpleMapping) -> bytes:
    return (
        name.decode("utf-8", "surrogateescape").translate(table).encode("utf-8", "surrogateescape")
    )
