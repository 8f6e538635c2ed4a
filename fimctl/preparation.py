"""What every `fim-` command of an image does before its own work, as FlatImage's users expect."""

import os

from fimctl import messages
from fimctl.environment import casefold_given, data_given, overlay_given
from fimctl.errors import ClientError
from fimctl.stored import read
from fimd.errors import DataDirectoryError
from fimd.image.reserved import CASEFOLD, OVERLAY
from fimd.image.settings import Casefold, Overlay
from fimd.instances.data import DataDirectory
from fimd.instances.fallback import under_view


def overlay_in_force(image: str) -> tuple[Overlay, str | None]:
    """Return the overlay that the next start uses, and a warning where casefold made it that.

    The environment's word (FIM_OVERLAY, FIM_CASEFOLD) is included.
    """
    given = overlay_given(image)
    overlay = Overlay[given.upper()] if given else read(image, OVERLAY) or Overlay.BWRAP
    folded = casefold_given() or read(image, CASEFOLD) is not Casefold.OFF
    if not folded:
        return overlay, None
    name, warning = under_view(overlay.name.lower())
    return Overlay[name.upper()], warning


def prepare(image: str) -> None:
    """Make the data directory, and warn where casefold rules the stored overlay out."""
    if not os.path.exists(image):
        raise ClientError(f"{image} does not exist")
    try:
        DataDirectory.of(os.path.realpath(image), data_given())
    except DataDirectoryError as error:
        messages.warning(str(error))
    _, warning = overlay_in_force(image)
    if warning is not None:
        messages.warning(warning)
