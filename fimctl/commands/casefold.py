"""`fimctl casefold`, and `fim-casefold` of an image: whether names are found in any case."""

from typing import Any, Final

from fimctl.errors import WordsError
from fimctl.stored import write
from fimctl.words import refuse_trailing
from fimd.flatimage.reserved import CASEFOLD
from fimd.flatimage.settings import Casefold

MODES: Final = ("on", "off", "preserve")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "casefold",
        help="whether an image finds names in any case",
        description="on: names are stored in lower case; preserve: they keep their spelling.",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("mode", choices=MODES)
    parser.set_defaults(func=lambda given: set_casefold(given.image, given.mode))


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-casefold on|off|preserve`."""
    if not words:
        raise WordsError("Incorrect number of arguments for 'fim-casefold' (<on|off>)")
    if words[0].lower() not in MODES:
        raise WordsError("Invalid casefold switch")
    refuse_trailing("fim-casefold", words[1:])
    return set_casefold(image, words[0].lower())


def set_casefold(image: str, mode: str) -> int:
    """Store the mode."""
    write(image, CASEFOLD, Casefold[mode.upper()])
    return 0
