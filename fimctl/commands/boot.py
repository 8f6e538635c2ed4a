"""`fimctl boot`, and `fim-boot` of an image: the program that it runs when none is named."""

import argparse
from typing import Any

from fimctl.errors import WordsError
from fimctl.stored import print_stored, read, write
from fimctl.words import operation, refuse_trailing
from fimd.flatimage.reserved import BOOT
from fimd.flatimage.settings import DEFAULT_BOOT, Boot, encode_boot


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("boot", help="which program an image runs when none is named")
    actions = parser.add_subparsers(required=True, metavar="set|show|clear")
    action = actions.add_parser(
        "set",
        help="store the program and its first arguments",
        usage="fimctl boot set IMAGE PROGRAM [ARGUMENT ...]",
    )
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("program", metavar="PROGRAM")
    action.add_argument("words", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    action.set_defaults(func=lambda given: set_boot(given.image, given.program, given.words))
    action = actions.add_parser("show", help="print the program and its arguments, as JSON")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: show_boot(given.image))
    action = actions.add_parser("clear", help="return to bash")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: clear_boot(given.image))


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-boot set <program> [args...] | show | clear`."""
    verb, rest = operation(words, "Missing op for 'fim-boot' (<set|show|clear>)")
    if verb == "set":
        if not rest:
            raise WordsError("Missing program for 'set' operation")
        return set_boot(image, rest[0], rest[1:])
    if verb not in {"show", "clear"}:
        raise WordsError("Invalid boot operation")
    refuse_trailing("fim-boot", rest)
    return show_boot(image) if verb == "show" else clear_boot(image)


def set_boot(image: str, program: str, words: list[str]) -> int:
    """Store the program and its arguments, verbatim."""
    write(image, BOOT, Boot(program, tuple(words)))
    return 0


def show_boot(image: str) -> int:
    """Print the program and its arguments."""
    print_stored(encode_boot(read(image, BOOT) or DEFAULT_BOOT))
    return 0


def clear_boot(image: str) -> int:
    """Forget the stored program."""
    write(image, BOOT, None)
    return 0
