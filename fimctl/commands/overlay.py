"""`fimctl overlay`, and `fim-overlay` of an image: which overlay backend it uses."""

from typing import Any

from fimctl.environment import OVERLAYS
from fimctl.errors import WordsError
from fimctl.preparation import overlay_in_force
from fimctl.stored import write
from fimctl.words import operation, refuse_trailing
from fimd.flatimage.reserved import OVERLAY
from fimd.flatimage.settings import Overlay


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "overlay",
        help="which overlay an image uses",
        description="Which overlay holds an image's changes: bwrap (the kernel's own), overlayfs "
        "(fuse-overlayfs) or unionfs (unionfs-fuse).",
    )
    actions = parser.add_subparsers(required=True, metavar="set|show")
    action = actions.add_parser("set", help="store the overlay in the image")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("overlay", choices=OVERLAYS)
    action.set_defaults(func=lambda given: set_overlay(given.image, given.overlay))
    action = actions.add_parser("show", help="print the overlay in force")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: show_overlay(given.image))


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-overlay set <name> | show`."""
    verb, rest = operation(words, "Missing op for 'fim-overlay' (<set|show>)")
    if verb == "set":
        if not rest:
            raise WordsError("Missing argument for 'set'")
        if rest[0].lower() not in OVERLAYS:
            raise WordsError(f"Invalid overlay type: {rest[0]} is none of {', '.join(OVERLAYS)}")
        refuse_trailing("fim-overlay", rest[1:])
        return set_overlay(image, rest[0].lower())
    if verb == "show":
        refuse_trailing("fim-overlay", rest)
        return show_overlay(image)
    raise WordsError("Invalid overlay operation")


def set_overlay(image: str, name: str) -> int:
    """Store the overlay."""
    write(image, OVERLAY, Overlay[name.upper()])
    return 0


def show_overlay(image: str) -> int:
    """Print the overlay that the next start uses, the environment's word included."""
    overlay = overlay_in_force(image)
    print(overlay.name)
    return 0
