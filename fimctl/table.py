"""What commands print: tables for people, JSON for programs."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from fimd.base.texts import printable


class Style:
    """Colours, on a terminal that wants them (https://no-color.org)."""

    ERRORS = sys.stderr

    def __init__(self) -> None:
        self.coloured = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )

    def _wrap(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.coloured else text

    def strong(self, text: str) -> str:
        """Return a heading."""
        return self._wrap("1", text)

    def colour(self, code: str, text: str) -> str:
        """Return text in a colour: an SGR code of ECMA-48, 31 for red and so on."""
        return self._wrap(code, text)

    def faint(self, text: str) -> str:
        """Return what matters less."""
        return self._wrap("2", text)


def say(text: str) -> None:
    """Print a line that may name something of an image's."""
    print(printable(text))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as their widest entry; numbers stand at the right."""
    style = Style()
    columns = [list(map(printable, column)) for column in zip(headings, *rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    right = [len(column) > 1 and all(_is_number(cell) for cell in column[1:]) for column in columns]
    for number, line in enumerate(zip(*columns, strict=True)):
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ]
        text = "  ".join(cells).rstrip()
        print(style.strong(text) if number == 0 else text)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell == "-"


def print_json(value: Any) -> None:
    """Print a value as JSON, with bytes as text."""
    print(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON in which a terminal finds nothing to obey."""
    text = json.dumps(value, indent=indent, default=_plain, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    )


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    raise TypeError(type(value))


def path_text(value: bytes) -> str:
    """Return a path as text that a terminal can show."""
    return printable(os.fsdecode(value))


def size_text(size: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def time_text(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
