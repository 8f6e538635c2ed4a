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

CASEFOLD_WARNING = "casefold cannot be used with bwrap overlayfs, falling back to unionfs"


def overlay_in_force(image: str) -> tuple[Overlay, bool]:
    """Return the overlay that the next start uses, and whether casefold made it that.

    The environment's word (FIM_OVERLAY, FIM_CASEFOLD) is included.
    """
    given = overlay_given(image)
    overlay = Overlay[given.upper()] if given else read(image, OVERLAY) or Overlay.BWRAP
    folded = casefold_given() or read(image, CASEFOLD) is not Casefold.OFF
    if folded and overlay is Overlay.BWRAP:
        return Overlay.UNIONFS, True
    return overlay, False


def prepare(image: str) -> None:
    """Make the data directory, and warn where casefold rules the stored overlay out."""
    if not os.path.exists(image):
        raise ClientError(f"{image} does not exist")
    try:
        DataDirectory.of(os.path.realpath(image), data_given())
    except DataDirectoryError as error:
        messages.warning(str(error))
    _, forced = overlay_in_force(image)
    if forced:
        messages.warning(CASEFOLD_WARNING)
