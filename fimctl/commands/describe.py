"""`fimctl describe`: completions and manual pages, made of what the parser itself knows."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from fimctl.describe.manual import fimctl_page, image_page
from fimctl.describe.shells import bash, fish, zsh
from fimctl.describe.tree import Command, describe

_FILES: Final[Mapping[str, Callable[[Command], str]]] = {
    "fimctl.bash": bash,
    "_fimctl": zsh,
    "fimctl.fish": fish,
    "fimctl.1": fimctl_page,
    "flatimage.7": lambda _: _image_page(),
}


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "describe",
        help="print completions for shells, and manual pages",
        description="Print a completion script (for bash, zsh, fish) or a manual page. A shell "
        "takes it as it is: source <(fimctl describe fimctl.bash)",
    )
    parser.add_argument("file", choices=tuple(_FILES))
    parser.set_defaults(func=lambda given: show(given.file))


def show(name: str) -> int:
    """Print a file."""
    print(text(name), end="")
    return 0


def text(name: str) -> str:
    """Return what a file holds, for a terminal of 80 columns."""
    from fimctl.cli import build  # noqa: PLC0415 - it imports this module

    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"  # argparse asks for it
    try:
        return _FILES[name](describe(build()))
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _image_page() -> str:
    from fimctl.commands.help import TOPICS  # noqa: PLC0415 - one page needs it

    return image_page(TOPICS)
