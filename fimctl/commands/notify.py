"""`fimctl notify`, and `fim-notify` of an image: whether its start shows a notification."""

from typing import Any, Final

from fimctl.errors import WordsError
from fimctl.stored import write
from fimd.flatimage.reserved import NOTIFY

MODES: Final = ("on", "off")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "notify",
        help="whether an image's start shows a notification",
        description="Whether the desktop tells that the image was started. The image has to be "
        "set up for the desktop too: see 'fimctl desktop setup'.",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("mode", choices=MODES)
    parser.set_defaults(func=lambda given: set_notify(given.image, given.mode))


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-notify on|off`."""
    if len(words) != 1:
        raise WordsError("Incorrect number of arguments for 'fim-notify' (<on|off>)")
    if words[0].lower() not in MODES:
        raise WordsError("Invalid notify switch")
    return set_notify(image, words[0].lower())


def set_notify(image: str, mode: str) -> int:
    """Store the switch."""
    write(image, NOTIFY, mode == "on")
    return 0
