"""What every `fim-` command of an image does before its own work, as FlatImage's users expect."""

import os

from fimctl import messages
from fimctl.errors import ClientError
from fimctl.stored import data_of, read
from fimd.errors import DataDirectoryError
from fimd.image.reserved import CASEFOLD, OVERLAY
from fimd.image.settings import Casefold, Overlay
from fimd.instances.data import DataDirectory

CASEFOLD_WARNING = "casefold cannot be used with bwrap overlayfs, falling back to unionfs"


def overlay_in_force(image: str) -> tuple[Overlay, bool]:
    """Return the overlay that the next start uses, and whether casefold made it that.

    The environment's word (FIM_OVERLAY, FIM_CASEFOLD) is included.
    """
    chosen = os.environ.get("FIM_OVERLAY")
    known = {overlay.name.lower(): overlay for overlay in Overlay}
    overlay = known[chosen] if chosen in known else read(image, OVERLAY) or Overlay.BWRAP
    folded = os.environ.get("FIM_CASEFOLD") == "1" or read(image, CASEFOLD) is not Casefold.OFF
    if folded and overlay is Overlay.BWRAP:
        return Overlay.UNIONFS, True
    return overlay, False


def prepare(image: str) -> None:
    """Make the data directory, and warn where casefold rules the stored overlay out."""
    if not os.path.exists(image):
        raise ClientError(f"{image} does not exist")
    try:
        DataDirectory.open(data_of(image))
    except DataDirectoryError as error:
        messages.warning(str(error))
    _, forced = overlay_in_force(image)
    if forced:
        messages.warning(CASEFOLD_WARNING)
