"""`fimctl perms`, and `fim-perms` of an image: what of the host its programs see."""

from typing import Any, Final

from fimctl.flags import Flags
from fimd.image.reserved import PERMISSIONS
from fimd.image.settings import Permission

_FLAGS: Final = Flags(
    command="perms",
    missing="Missing op for fim-perms (add,del,list,set,clear)",
    noun="Permission",
    invalid="Invalid permission",
    kind=Permission,
    field=PERMISSIONS,
)

image_command = _FLAGS.image_command


def add_parser(commands: Any) -> None:
    """Add the command."""
    _FLAGS.add_parser(
        commands,
        "what of the host an image's programs see",
        "What of the host an image's programs see and may use.",
    )
