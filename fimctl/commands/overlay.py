"""`fimctl overlay`, and `fim-overlay` of an image: which overlay backend it uses."""

import argparse
import os
from typing import Any

from fimctl.daemon import Daemon
from fimctl.errors import ClientError
from fimctl.launch import options_of_environment


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("overlay", help="which overlay an image uses")
    actions = parser.add_subparsers(required=True, metavar="set|show")
    action = actions.add_parser("set", help="store the overlay in the image")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("overlay", metavar="bwrap|overlayfs|unionfs")
    action.set_defaults(func=lambda given: set_overlay(given.image, given.overlay))
    action = actions.add_parser("show", help="print the overlay in force")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=_show)


def _show(arguments: argparse.Namespace) -> int:
    return show_overlay(arguments.image)


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-overlay set <name> | show`."""
    if not words:
        raise ClientError("Missing op for 'fim-overlay' (<set|show>)")
    operation, *rest = words
    if operation.lower() == "set":
        if not rest:
            raise ClientError("Missing argument for 'set'")
        if rest[0].lower() not in {"bwrap", "overlayfs", "unionfs"}:
            raise ClientError("Invalid overlay type")
        _refuse_trailing(rest[1:])
        return set_overlay(image, rest[0].lower())
    if operation.lower() == "show":
        _refuse_trailing(rest)
        return show_overlay(image)
    raise ClientError("Invalid overlay operation")


def _refuse_trailing(words: list[str]) -> None:
    if words:
        listed = "".join(f"'{word}'," for word in words)
        raise ClientError(f"Trailing arguments for fim-overlay: [{listed}]")


def set_overlay(image: str, overlay: str) -> int:
    """Store the overlay."""
    with Daemon() as daemon:
        path = daemon.open_image(image)
        daemon.image(path, "SetOverlay", "sa{sv}", (overlay, {}))
    return 0


def show_overlay(image: str) -> int:
    """Print the overlay that the next start uses, the environment's word included."""
    with Daemon() as daemon:
        facts = daemon.properties("Image", daemon.open_image(image))
    options = options_of_environment(os.environ)
    overlay = options.get("overlay", ("s", facts["Overlay"]))[1]
    folded = facts["Casefold"] != "off" or "casefold" in options
    print("UNIONFS" if folded and overlay == "bwrap" else overlay.upper())
    return 0
