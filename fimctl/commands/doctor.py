"""`fimctl doctor`: whether this machine and this session can run images, and what to do."""

import argparse
import asyncio
import shutil
import textwrap
from dataclasses import asdict
from typing import Any, Final

from fimctl.environment import data_of
from fimctl.table import Style, print_json
from fimd.base.texts import printable
from fimd.diagnosis.finding import Finding, Verdict

_MARKS: Final = {
    Verdict.OK: ("ok", "32"),
    Verdict.NOTE: ("note", "33"),
    Verdict.PROBLEM: ("BAD", "31"),
}


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="find out what keeps images from running",
        description="Look at FUSE, user namespaces, engines, the session and the disk, and try "
        "every overlay in a scratch directory. It needs no running daemon. The exit code is 1 "
        "where a problem was found.",
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        help="try the overlays where this image keeps its changes, too (or FIM_DIR_DATA)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was found, with a remedy for each finding that needs one."""
    from fimd import diagnosis  # noqa: PLC0415 - it imports much
    from fimd.base import logs  # noqa: PLC0415 - it imports much

    logs.setup("error")
    data = None if arguments.image is None else data_of(arguments.image)
    groups = asyncio.run(diagnosis.diagnose(data))
    findings = [finding for group in groups.values() for finding in group]
    bad = sum(finding.verdict is Verdict.PROBLEM for finding in findings)
    if arguments.json:
        print_json({name: [asdict(item) for item in group] for name, group in groups.items()})
        return bool(bad)
    style = Style()
    width = min(shutil.get_terminal_size().columns, 120)
    for name, group in groups.items():
        print(style.strong(name))
        for finding in group:
            _show(finding, style, width)
    notes = sum(finding.verdict is Verdict.NOTE for finding in findings)
    counts = {"check": len(findings), "note": notes, "problem": bad}
    told = (f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
    print(f"\n{', '.join(told)}")
    return bool(bad)


def _show(finding: Finding, style: Style, width: int) -> None:
    mark, colour = _MARKS[finding.verdict]
    margin = " " * 28
    print(f"  {style.colour(colour, f'{mark:4}')} {printable(finding.name):20} ", end="")
    lines = textwrap.wrap(printable(finding.detail), max(width - len(margin), 30))
    print(f"\n{margin}".join(lines or [""]))
    if finding.remedy:
        remedy = textwrap.wrap(f"→ {printable(finding.remedy)}", max(width - len(margin), 30))
        print("\n".join(f"{margin}{style.strong(line)}" for line in remedy))
