"""What a benchmark finds: rows of a table, on the terminal and in the documentation."""

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.timing import Rounds

_TABLE = "| what | here | beside what | there | ratio | reach | |\n|---|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """One figure beside another one."""

    what: str
    figure: str
    beside: str = ""
    other: str = ""
    ratio: float | None = None
    reach: str = ""
    reached: bool | None = None
    """None where nothing is to be reached."""

    def __str__(self) -> str:
        """Return the row for a terminal."""
        ratio = f"; ratio {self.ratio:.3g}" if self.ratio is not None else ""
        beside = f"; {self.beside}: {self.other}" if self.beside else ""
        return f"{self.what}: {self.figure}{beside}{ratio}{self._verdict(' (reach: {}) {}')}"

    def _verdict(self, text: str) -> str:
        mark = {True: "reached", False: "MISSED", None: ""}[self.reached]
        return text.format(self.reach, mark) if self.reach else ""

    @property
    def markdown(self) -> str:
        """The row of a Markdown table."""
        ratio = f"{self.ratio:.3g}" if self.ratio is not None else ""
        verdict = {True: "✓", False: "✗", None: ""}[self.reached]
        cells = (self.what, self.figure, self.beside, self.other, ratio, self.reach, verdict)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def compared(
    what: str,
    rounds: Rounds,
    ours: str,
    theirs: str,
    *,
    unit: str = "ms",
    scale: float = 1e3,
    most: float | None = None,
) -> Row:
    """Make a row of two names' medians and their ratio, which is to be `most` at most.

    Values times `scale` are in `unit`.
    """
    figure, other = (f"{rounds.median(name) * scale:.4g} {unit}" for name in (ours, theirs))
    ratio = rounds.ratio(ours, theirs)
    if most is None:
        return Row(what, figure, theirs, other, ratio)
    return Row(what, figure, theirs, other, ratio, f"≤ {most:g}", ratio <= most)


def machine() -> str:
    """Say what bears on the figures, and nothing that names the machine."""
    [memory] = re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return (
        f"{os.cpu_count()} processors ({platform.machine()}), {int(memory) / 2**20:.0f} GiB, Linux "
        f"{re.match(r'[0-9.]+', platform.release())[0]}, Python {platform.python_version()}"  # type: ignore[index]
    )


def write(document: Path, name: str, rows: Iterable[Row]) -> None:
    """Put a benchmark's table between its two marks in a document."""
    text = document.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{document} has no {begin.strip()} … {end.strip()}")
    table = _TABLE + "".join(row.markdown for row in rows)
    document.write_text(f"{before}{begin}\n{table}\nOn {machine()}.\n\n{end}{after}")
