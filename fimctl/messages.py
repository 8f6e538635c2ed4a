"""Messages of an image's own command line, in FlatImage's form `<L>::<file>::<line>::<text>`.

`L` is D(ebug), I(nformation), W(arning), E(rror) or C(ritical). Scripts match the text only.
"""

import os
import sys
from types import FrameType
from typing import TextIO

from fimctl.errors import ClientError
from fimd.base.texts import harmless


def debugging() -> bool:
    """Tell whether the user asked for everything: FIM_DEBUG is exactly 1."""
    return os.environ.get("FIM_DEBUG") == "1"


def debug(text: str) -> None:
    """Say what only FIM_DEBUG=1 shows, on standard output."""
    if debugging():
        _print(sys.stdout, "D", text, _caller())


def info(text: str) -> None:
    """Say on standard output what a command did."""
    _print(sys.stdout, "I", text, _caller())


def warning(text: str) -> None:
    """Say on standard error what a user should know, although the command goes on."""
    _print(sys.stderr, "W", text, _caller())


def error(text: str) -> None:
    """Say on standard error what failed."""
    _print(sys.stderr, "E", text, _caller())


def report(failure: ClientError, *, brief: bool = False) -> None:
    """Print an error that ended the command: its text, what failed for it, and the last line.

    `brief` is for programs, which have standard error to themselves: they get the text alone.
    """
    trace = failure.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame if trace is not None else _caller()
    if brief and not failure.context and not debugging():
        _print(sys.stderr, "C", str(failure), frame)
        return
    for text in (str(failure), *failure.context, "The program exited with an error"):
        _print(sys.stderr, "E", text, frame)


def _caller() -> FrameType:
    """Return the frame that called the function that asks."""
    return sys._getframe(2)  # noqa: SLF001 - nothing public is as quick, and logging does it too


def _print(stream: TextIO, level: str, text: str, frame: FrameType) -> None:
    place = f"{os.path.basename(frame.f_code.co_filename)}::{frame.f_lineno}"
    text = harmless(text.replace("\n", ""))
    line = f"{level}::{place}::{text}"
    stream.flush()
    stream.buffer.write(os.fsencode(line) + b"\n")  # a path may be no text
    stream.flush()
