"""A progress bar on a terminal; silence everywhere else."""

import os
import sys
import time
from typing import Final, Self

from fimctl.table import size_text

_INTERVAL: Final = 0.1
_COLUMNS: Final = 80
"""The width of a terminal that does not know its own."""


class ProgressBar:
    """One line on standard error that shows how far some work is. Sizes are bytes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    @staticmethod
    def note(text: str) -> None:
        """Print a line above the bar."""
        sys.stderr.write(f"\r\033[K{text}\n" if sys.stderr.isatty() else f"{text}\n")

    def update(self, done: int, total: int) -> None:
        """Draw the bar, at most ten times a second. A `total` of 0 is one that nobody knows."""
        rate = int(done / max(time.monotonic() - self._began, 0.001))
        self.show(min(done / total, 1.0) if total else None, done, rate)

    def show(self, part: float | None, done: int, rate: int) -> None:
        """Draw the bar with a part of the whole, None where nobody knows, and bytes a second."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        width = os.get_terminal_size(2).columns or _COLUMNS
        facts = f" {size_text(done)}, {size_text(rate)}/s"
        if part is not None:
            facts = f" {part:4.0%}{facts}"
            room = max(width - len(self._title) - len(facts) - 4, 0)
            bar = "█" * round(room * part)
            facts = f" [{bar.ljust(room, '·')}]{facts}" if room >= 10 else facts
        sys.stderr.write(f"\r\033[K{self._title}{facts}"[: width + 4])
        sys.stderr.flush()
