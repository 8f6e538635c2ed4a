"""`fimctl casefold`, and `fim-casefold` of an image: whether names are found in any case."""

import sys
from typing import Any, Final

from fimctl.daemon import Daemon
from fimctl.errors import ClientError

MODES: Final = ("on", "off", "preserve")
_WARNING: Final = "casefold cannot be used with bwrap overlayfs, falling back to unionfs"


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
        raise ClientError("Incorrect number of arguments for 'fim-casefold' (<on|off>)")
    if words[0].lower() not in MODES:
        raise ClientError("Invalid casefold switch")
    if words[1:]:
        listed = "".join(f"'{word}'," for word in words[1:])
        raise ClientError(f"Trailing arguments for fim-casefold: [{listed}]")
    return set_casefold(image, words[0].lower())


def set_casefold(image: str, mode: str) -> int:
    """Store the mode; warn where it was on and forced another overlay, as FlatImage does."""
    with Daemon() as daemon:
        path = daemon.open_image(image)
        before = daemon.properties("Image", path)
        daemon.image(path, "SetCasefold", "sa{sv}", (mode, {}))
    if before["Casefold"] != "off" and before["StoredOverlay"] in {"", "bwrap"}:
        print(f"fimctl: {_WARNING}", file=sys.stderr)
    return 0
