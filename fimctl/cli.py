"""The command line of fimctl: one module in fimctl.commands for each command.

A module has `add_parser(subparsers)`, which sets `func` to what takes the parsed arguments and
returns the exit code. A new command is one file and one word here.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from fimctl.table import Style

COMMANDS: Final = (
    "run",
    "instance",
    "ps",
    "stop",
    "enter",
    "status",
    "prune",
    "shutdown",
    "stack",
    "monitor",
    "images",
    "layers",
    "image",
    "layer",
    "upper",
    "data",
    "dwarfs",
    "overlay",
    "casefold",
    "boot",
    "env",
    "perms",
    "bind",
    "unshare",
    "desktop",
    "notify",
    "version",
    "describe",
    "setup",
    "settings",
    "logs",
    "doctor",
)


def run(arguments: Sequence[str]) -> int:
    """Parse a command line and do what it says."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    named = [name for name in COMMANDS if name in arguments[:1]]
    parsed = build(named or COMMANDS).parse_args(arguments)
    code: int = parsed.func(parsed)
    return code


def build(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser with the commands `names`; it imports no others."""
    parser = _Parser(
        prog="fimctl",
        description="Run and inspect FlatImage applications, by the daemon fimd.",
        epilog="'fimctl COMMAND --help' tells more of a command.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    parser.set_defaults(func=_help(parser, 0))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    app = commands.add_parser(
        "app", help="what an image's own command line does", usage="fimctl app IMAGE [WORD ...]"
    )
    app.set_defaults(func=_help(app, 125))
    for name in names:
        import_module(f"fimctl.commands.{name}").add_parser(commands)
    _explain(parser)
    return parser


def _explain(parser: argparse.ArgumentParser) -> None:
    """Let the help of a command say at least what the list of commands says of it."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            continue
        helps = {entry.dest: entry.help or "" for entry in action._get_subactions()}  # noqa: SLF001
        for name, command in action.choices.items():
            summary = helps.get(name, "")
            if command.description is None and summary:
                command.description = f"{summary[0].upper()}{summary[1:]}."
            _explain(command)


def _help(parser: argparse.ArgumentParser, code: int) -> Callable[[argparse.Namespace], int]:
    def show(_: argparse.Namespace) -> int:
        parser.print_help()
        return code

    return show


class _Parser(argparse.ArgumentParser):
    """Bad arguments give exit code 125, as every error that is not a program's own."""

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.print_usage(Style.ERRORS)
        self.exit(125, f"{self.prog}: {message}\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from fimd import __version__  # noqa: PLC0415

        parser.exit(0, f"fimctl {__version__}\n")
