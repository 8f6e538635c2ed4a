"""Looking for layers where nothing says where they are.

The magic alone proves nothing: FlatImage's tools hold it as text, and file contents may. What
counts is a length word followed by a DwarFS image that ends exactly where the word says.
"""

from collections.abc import Iterator
from typing import Final

from .errors import DamagedImageError
from .file import name_of, read_at
from .section import FIRST_MINOR_WITH_LONG_HEADERS, HEADER, MAGIC, MAJOR, is_whole, parse_section

WINDOW: Final = 4 << 20
WORD: Final = 8
NEEDLE: Final = MAGIC + bytes([MAJOR])
# A file made to hold more near misses than this is not worth the hours.
MOST_SUSPECTS: Final = 1_000
MOST_SECTIONS: Final = 4096


def records(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Offset of the length word, and that length, of each whole layer in [start, end).

    What lies inside a layer that was found is passed over. Raises DamagedImageError where the
    search would take too long.
    """
    suspects = 0
    position = start
    while position < end:
        window = read_at(fd, position, min(WINDOW, end - position))
        skip_to = position + max(len(window) - HEADER.size - WORD + 1, 1)
        at = window.find(NEEDLE, WORD)
        while at != -1 and position + at - WORD < skip_to:
            length = _suspect(window, at, end - position - at)
            if length is not None:
                suspects += 1
                if is_whole(fd, position + at, length, MOST_SECTIONS):
                    yield position + at - WORD, length
                    skip_to = position + at + length
                    break
            if suspects > MOST_SUSPECTS:
                raise DamagedImageError(
                    f"{name_of(fd)} is damaged, and too much in it looks like a layer, up to "
                    f"offset {position + at}: copy or download it again"
                )
            at = window.find(NEEDLE, at + 1)
        position = skip_to


def _suspect(window: bytes, at: int, room: int) -> int | None:
    """The length before the magic at `at`, where it and the header after it can be right."""
    length = int.from_bytes(window[at - WORD : at], "little")
    section = parse_section(window[at : at + HEADER.size])
    if (
        section is None
        or section.minor < FIRST_MINOR_WITH_LONG_HEADERS
        or section.number != 0
        or not section.size < length <= room
    ):
        return None
    return length


def last_run(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The last of `found` that follow each other without a gap."""
    start = len(found)
    while start > 0:
        start -= 1
        if start == 0 or sum(found[start - 1]) + WORD != found[start][0]:
            break
    return found[start:]


def first_record(fd: int, start: int, end: int) -> int | None:
    """The length word's offset of the first layer in [start, end) of a chain that reaches `end`.

    Where no chain does, that of the first whole layer; None where there is none.
    """
    found = list(records(fd, start, end))
    run = last_run(found)
    if run and sum(run[-1]) + WORD == end:
        return run[0][0]
    return found[0][0] if found else None
