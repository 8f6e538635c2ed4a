"""Texts that somebody else has written, as they may be shown: of images, paths, programs.

A terminal obeys what is not printable, a desktop's files have lines, and D-Bus carries Unicode
alone. Whatever an image says of itself goes through one of these before it is shown or written.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LONGEST: Final = 200
"""Bytes of a name that becomes part of a file's, of which 255 are allowed."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, *, keep: str = "") -> str:
    """Escape what a terminal would obey or can't show, but for the characters `keep`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else _escaped(character)
        for character in text
    )


def harmless(text: str) -> str:
    """Escape what a terminal would obey, and leave the bytes of names that are not UTF-8."""
    return printable(text, keep=_BYTES)


def label(text: str, most: int = _LONGEST) -> str:
    """Return a name that desktops and their files can have: printable, one line, not long.

    `most` is how many bytes it may have.
    """
    shown = "".join(
        character if character.isprintable() else _REPLACEMENT for character in text[:most]
    )
    return shown.encode()[:most].decode(errors="ignore")


# Bytes as os.fsdecode has them. Those of 0x80 to 0x9f are control characters of some terminals.
_BYTES: Final = "".join(map(chr, range(0xDCA0, 0xDD00)))


def _escaped(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
