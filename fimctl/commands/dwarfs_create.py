"""`fimctl dwarfs create`: a DwarFS image of a directory, with mkdwarfs's options."""

import argparse
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from fimctl.compression import compression_level
from fimctl.errors import ClientError
from fimctl.progress import ProgressBar
from fimctl.table import path_text, print_json, size_text
from fimd.base.texts import printable

if TYPE_CHECKING:
    from fimd.dwarfs.write import Progress, Summary

_FAILED = 1
_MOST_THREADS = 256


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "create",
        help="make an image of a directory",
        description="Make a DwarFS image of a directory. SOURCE_DATE_EPOCH, if it is set, becomes"
        " the time of making; else none is written. The same tree gives the same image.",
    )
    parser.add_argument("-i", "--input", metavar="DIR", required=True, help="what to pack")
    parser.add_argument("-o", "--output", metavar="IMAGE", required=True, help="the image")
    parser.add_argument("-f", "--force", action="store_true", help="replace IMAGE if it exists")
    parser.add_argument(
        "-l",
        "--compress-level",
        metavar="LEVEL",
        type=int,
        choices=range(10),
        help="0 (fast) to 9 (small); FIM_COMPRESSION_LEVEL, or 7",
    )
    parser.add_argument(
        "--input-list",
        metavar="FILE",
        help="pack only the paths that FILE names (-: standard input), one a line or, where it"
        " holds a NUL, one before each NUL; relative to DIR",
    )
    parser.add_argument("--set-owner", metavar="UID", type=int, help="owner of everything")
    parser.add_argument("--set-group", metavar="GID", type=int, help="group of everything")
    parser.add_argument(
        "--threads", metavar="N", type=_threads, help="that compress (all there are)"
    )
    parser.add_argument(
        "--subsecond", action="store_true", help="keep the fractions of seconds in times"
    )
    parser.add_argument(
        "--sparse",
        action=argparse.BooleanOptionalAction,
        help="keep holes, which releases of DwarFS before 0.14 refuse (only where they are large)",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out what may not be read"
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the image. Returns 1 where something was left out."""
    from fimd.dwarfs.errors import DwarfsError  # noqa: PLC0415 - only this command needs it
    from fimd.dwarfs.write import create  # noqa: PLC0415

    if os.path.lexists(arguments.output) and not arguments.force:
        raise ClientError(
            f"{printable(arguments.output)} exists already: remove it, or add --force", _FAILED
        )
    level = arguments.compress_level
    skipped: list[dict[str, Any]] = []
    bars = _Bars(shown=not arguments.no_progress)

    def skip(path: bytes, reason: str) -> None:
        skipped.append({"path": path, "reason": reason})
        ProgressBar.note(f"fimctl: {path_text(path)}: {reason}")

    try:
        with bars:
            summary = create(
                arguments.input,
                arguments.output,
                level=compression_level() if level is None else level,
                entries=_input_list(arguments.input_list),
                uid=arguments.set_owner,
                gid=arguments.set_group,
                threads=arguments.threads,
                subsecond=arguments.subsecond,
                sparse=arguments.sparse,
                created=_epoch(),
                progress=bars.update,
                on_skip=skip if arguments.skip_unreadable else None,
            )
    except DwarfsError as error:
        raise ClientError(str(error), _FAILED) from error
    if arguments.json:
        print_json({**asdict(summary), "skipped": skipped})
    else:
        _print(arguments.output, summary)
    return _FAILED if skipped else 0


class _Bars:
    """A bar for each phase, one after the other."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._phase = ""
        self._bar = ProgressBar("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def update(self, progress: "Progress") -> None:
        """Draw the bar of the phase."""
        if not self._shown:
            return
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._bar = ProgressBar({"survey": "looking"}.get(progress.phase, "packing"))
        self._bar.update(progress.bytes_done, progress.bytes_total)


def _input_list(name: str | None) -> list[bytes] | None:
    if name is None:
        return None
    try:
        if name == "-":
            text = sys.stdin.buffer.read()
        else:
            with open(name, "rb") as file:
                text = file.read()
    except OSError as error:
        raise ClientError(f"{printable(name)}: {error.strerror}", _FAILED) from error
    return [path for path in text.split(b"\0" if b"\0" in text else b"\n") if path]


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of 1 to {_MOST_THREADS}")
    return int(text)


def _epoch() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ClientError(f"SOURCE_DATE_EPOCH is {text!r}, which is no number of seconds", _FAILED)
    return int(text)


def _print(name: str, summary: "Summary") -> None:
    ratio = summary.bytes_out / summary.bytes_in if summary.bytes_in else 1
    saved = summary.bytes_duplicate + summary.bytes_repeated
    print(
        f"{printable(name)}: {size_text(summary.bytes_out)}, {ratio:.1%} of"
        f" {size_text(summary.bytes_in)} in {summary.files} files"
        f" ({summary.duplicates} duplicates, {size_text(saved)} found twice)"
    )
    if summary.times_clamped:
        print(
            f"fimctl: {summary.times_clamped} times are not from 1970 to 2242: stored the nearest",
            file=sys.stderr,
        )
