"""`fimctl unshare`, and `fim-unshare` of an image: which namespaces its programs have alone."""

from typing import Any, Final

from fimctl.flags import Flags
from fimd.image.reserved import UNSHARE
from fimd.image.settings import Unshare

_FLAGS: Final = Flags(
    command="unshare",
    missing="Missing op for fim-unshare (add,clear,del,list,set)",
    noun="Unshare option",
    invalid="Invalid unshare option",
    kind=Unshare,
    field=UNSHARE,
)

image_command = _FLAGS.image_command


def add_parser(commands: Any) -> None:
    """Add the command."""
    _FLAGS.add_parser(
        commands,
        "which namespaces an image does not share with the host",
        "Which of the kernel's namespaces an image's programs do not share with the host.",
    )
