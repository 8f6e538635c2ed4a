"""Manual pages: fimctl(1) and, for the commands of an image itself, flatimage(7)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fimctl.describe.tree import Argument, Command

_EXIT: Final = """\
The exit code of a program in an image is passed on: 127 where there is no such program, 126 where
it can't be executed, 128 and the signal's number where one killed it. Every error that is not the
program's own gives 125."""

_VARIABLES: Final[Sequence[tuple[str, str]]] = (
    ("FIM_OVERLAY", "bwrap, overlayfs or unionfs: the overlay, whatever is stored."),
    ("FIM_CASEFOLD", "1 finds names in any case, even where that is stored as off."),
    (
        "FIM_LAYERS",
        "Layer files, and directories of such, separated by colons: loaded in this "
        "order above the image's own layers.",
    ),
    ("FIM_ROOT", "1 makes programs uid 0 inside."),
    (
        "FIM_DIR_DATA",
        "Where changes are kept, instead of .NAME.data beside the image, or fimd/data in "
        "XDG_DATA_HOME for an image that lies where this user can't write.",
    ),
    (
        "FIM_COMPRESSION_LEVEL",
        "0 (fast) to 9 (small) for what is packed; 7 by default, 3 for whole images.",
    ),
    ("FIM_DIR_GLOBAL", "Where mounts and bundled programs are, instead of /tmp/fim."),
    ("FIM_DEBUG", "1 tells of every step of a start."),
)


def fimctl_page(root: Command) -> str:
    """Return fimctl(1)."""
    parts = [
        *_head("FIMCTL", 1, "fimctl", "run and inspect FlatImage applications"),
        *_section("SYNOPSIS", f".B {root.words[0]}\n.I COMMAND\n[ARGUMENT ...]"),
        *_section(
            "DESCRIPTION",
            _text(
                "fimctl runs applications that are one executable file, a FlatImage, by the "
                "daemon fimd: it mounts their layers and a writable view over them, and shares "
                "them among all instances. The daemon is started when it is needed."
            ),
        ),
        ".SH COMMANDS",
    ]
    for command in root.walk():
        if not command.commands and command is not root:
            parts += _command(command)
        elif command is not root and command.description:
            parts += [f".SS {_escaped(' '.join(command.words))}", _text(command.description)]
    parts += [
        *_section("ENVIRONMENT", *_tagged(_VARIABLES)),
        *_section("EXIT STATUS", _text(_EXIT)),
        *_section("SEE ALSO", ".BR flatimage (7)"),
    ]
    return "\n".join(parts) + "\n"


def image_page(topics: Mapping[str, tuple[str, str, str]]) -> str:
    """Return flatimage(7). `topics` are the commands: a summary, usages and a note for each."""
    parts = [
        *_head("FLATIMAGE", 7, "flatimage", "the command line of an image"),
        *_section(
            "SYNOPSIS", ".I IMAGE\n[ARGUMENT ...]\n.br\n.I IMAGE\n.BR fim- COMMAND\n[ARGUMENT ...]"
        ),
        *_section(
            "DESCRIPTION",
            _text(
                "An image is executed like any program. Without a word that begins with 'fim-' "
                "it runs its boot program, with all of the words after the stored ones. Words "
                "that name an operation or a value may be in any case."
            ),
        ),
        ".SH COMMANDS",
    ]
    for name, (summary, usage, note) in topics.items():
        parts += [f".SS fim-{name}", _text(f"{summary}.")]
        parts += [".PP", ".nf", *map(_escaped, usage.splitlines()), ".fi", ".PP", _text(note)]
    parts += [
        *_section("ENVIRONMENT", *_tagged(_VARIABLES)),
        *_section("EXIT STATUS", _text(_EXIT)),
        *_section("SEE ALSO", ".BR fimctl (1)"),
    ]
    return "\n".join(parts) + "\n"


def _head(title: str, number: int, name: str, summary: str) -> Iterator[str]:
    yield f'.TH {title} {number} "" fimd'
    yield from _section("NAME", f"{name} \\- {summary}")


def _section(title: str, *lines: str) -> Iterator[str]:
    yield f".SH {title}"
    yield from lines


def _command(command: Command) -> Iterator[str]:
    yield f".SS {_escaped(' '.join(command.words))}"
    yield f".B {_escaped(command.usage)}"
    yield ".PP"
    yield _text(command.description or f"{command.summary[:1].upper()}{command.summary[1:]}.")
    explained = [argument for argument in command.arguments if argument.help]
    yield from _tagged(
        [(_name(argument), argument.help) for argument in explained if "-h" not in argument.flags]
    )


def _name(argument: Argument) -> str:
    flags = ", ".join(argument.flags)
    return " ".join(part for part in (flags, argument.metavar) if part)


def _tagged(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, text in entries:
        yield from (".TP", f".B {_escaped(name)}", _text(text))


def _text(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
