"""Looking for layers where nothing says where they are.

The magic alone proves nothing: FlatImage's tools hold it as text, and file contents may. What
counts is a length word followed by a DwarFS image that ends exactly where the word says.
"""

import re
from collections.abc import Iterator
from typing import Final

from .errors import DamagedImageError
from .file import name_of, read_at
from .section import HEADER, is_whole, parse_section

WINDOW: Final = 4 << 20
WORD: Final = 8
# A header with number 0, of a format that numbers its sections: major 2, minor 2 or later.
FIRST_HEADER: Final = re.compile(rb"DWARFS\x02(?=[^\x00\x01].{40}\x00{4})", re.DOTALL)
# A file made to hold more near misses than this is not worth the hours: headers with a number 0,
# those of them that fit their length word, and the sections looked at for each of these.
MOST_HEADERS: Final = 1_000_000
MOST_SUSPECTS: Final = 1_000
MOST_SECTIONS: Final = 4096


def records(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Offset of the length word, and that length, of each whole layer in [start, end).

    What lies inside a layer that was found is passed over. Raises DamagedImageError where the
    search would take too long.
    """
    headers = suspects = 0
    position = start
    while position < end:
        window = read_at(fd, position, min(WINDOW, end - position))
        # A header that the window cuts off belongs to the next one, with its length word.
        next_position = position + max(len(window) - HEADER.size - WORD + 1, 1)
        for match in FIRST_HEADER.finditer(window, WORD):
            at = match.start()
            headers += 1
            length = _fitting_length(window, at, end - position - at)
            if length is not None:
                suspects += 1
                if is_whole(fd, position + at, length, MOST_SECTIONS):
                    yield position + at - WORD, length
                    next_position = position + at + length
                    break
            if headers > MOST_HEADERS or suspects > MOST_SUSPECTS:
                raise DamagedImageError(
                    f"{name_of(fd)} is damaged, and too much in it looks like a layer, up to "
                    f"offset {position + at}: copy or download it again"
                )
        position = next_position


def _fitting_length(window: bytes, at: int, room: int) -> int | None:
    """The length word before the header at `at`, where the two agree and the file has room."""
    length = int.from_bytes(window[at - WORD : at], "little")
    section = parse_section(window[at : at + HEADER.size])
    return length if section is not None and section.size < length <= room else None


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
