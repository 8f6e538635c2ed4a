"""The commands of a parser as plain facts."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Argument:
    """An option (with flags) or a positional argument (without)."""

    flags: tuple[str, ...]
    metavar: str
    """Empty for an option that takes no value."""
    choices: tuple[str, ...]
    help: str
    count: str = ""
    """How many values: ? (perhaps one), * (any number), + (one or more), or empty for just one."""


@dataclass(frozen=True)
class Command:
    """A command, by the words that name it, the program's name first."""

    words: tuple[str, ...]
    summary: str
    description: str
    usage: str
    arguments: tuple[Argument, ...]
    commands: tuple["Command", ...]

    def walk(self) -> Iterator["Command"]:
        """Yield this command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def describe(parser: argparse.ArgumentParser, summary: str = "") -> Command:
    """Return a parser's commands."""
    words = tuple(parser.prog.split())
    arguments, commands = [], []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {entry.dest: entry.help or "" for entry in action._get_subactions()}  # noqa: SLF001
            commands += [describe(sub, helps.get(name, "")) for name, sub in action.choices.items()]
        elif action.help is not argparse.SUPPRESS:
            arguments.append(_argument(action))
    options = [argument for argument in arguments if argument.flags and "-h" not in argument.flags]
    positional = [argument for argument in arguments if not argument.flags]
    usage = parser.usage or " ".join((*words, *map(_usage, (*options, *positional))))
    description = " ".join((parser.description or "").split())
    return Command(words, summary, description, usage, tuple(arguments), tuple(commands))


def _argument(action: argparse.Action) -> Argument:
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if takes_value and not metavar:
        metavar = "|".join(choices) or action.dest.upper()
    help_text = " ".join((action.help or "").split())
    count = {"?": "?", "*": "*", argparse.REMAINDER: "*", "+": "+"}.get(str(action.nargs), "")
    return Argument(
        tuple(action.option_strings), metavar if takes_value else "", choices, help_text, count
    )


def _usage(argument: Argument) -> str:
    """Return how an argument stands in a line of usage, whatever Python's version makes of it."""
    name = argument.metavar
    values = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}
    value = values.get(argument.count, name)
    return f"[{' '.join((argument.flags[0], value)).rstrip()}]" if argument.flags else value
