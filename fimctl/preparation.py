"""What every `fim-` command of an image does before its own work, as FlatImage's users expect."""

import os

from fimctl import messages
from fimctl.environment import casefold_given, data_given, overlay_given
from fimctl.errors import ClientError
from fimctl.stored import read
from fimd.base.errors import DataDirectoryError
from fimd.flatimage.reserved import CASEFOLD, OVERLAY
from fimd.flatimage.settings import Casefold, Overlay
from fimd.stacks.data import DataDirectory

_CASEFOLD_WORDS = "casefold cannot be used with bwrap overlayfs, falling back to unionfs"
"""What FlatImage says, whose view can't lie over the kernel's overlay as this one can."""


def overlay_in_force(image: str) -> Overlay:
    """Return the overlay that the next start uses, by FIM_OVERLAY or the image."""
    given = overlay_given(image)
    return Overlay[given.upper()] if given else read(image, OVERLAY) or Overlay.BWRAP


def prepare(image: str) -> None:
    """Make the data directory; and with FIM_DEBUG=1 say what FlatImage says at every command."""
    if not os.path.exists(image):
        raise ClientError(f"{image} does not exist")
    try:
        DataDirectory.of(os.path.realpath(image), data_given())
    except DataDirectoryError as error:
        messages.warning(str(error))
    debugging = os.environ.get("FIM_DEBUG") == "1"
    if debugging and overlay_in_force(image) is Overlay.BWRAP and _folds(image):
        messages.warning(_CASEFOLD_WORDS)


def _folds(image: str) -> bool:
    return casefold_given() or read(image, CASEFOLD) is not Casefold.OFF
