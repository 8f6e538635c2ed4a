"""What an image is called, and where its data directory is.

The client asks at every start, so this imports little.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LONGEST: Final = 255
"""Bytes that a name may have on Linux's file systems."""
_KEPT: Final = 200
"""Bytes of an image's name that its data directory has in its own, elsewhere than beside it."""


def data_home() -> str:
    """Return XDG_DATA_HOME."""
    given = os.environ.get("XDG_DATA_HOME", "")
    if given.startswith("/"):
        return given
    return os.path.join(os.path.expanduser("~"), ".local", "share")


def data_directory(image: str) -> str:
    """Return the data directory of an image, by the image's real path.

    It is beside the image, as FlatImage has it; where this user can't have one there, as on a
    read-only medium or in another user's directory, it is the user's own.
    """
    place = beside(image)
    has_room = len(os.fsencode(os.path.basename(place))) <= _LONGEST
    is_there = os.path.lexists(place)
    if is_there and not os.path.isdir(place):
        return place  # who opens it says what is wrong with it
    written = place if is_there else os.path.dirname(image)
    if has_room and os.access(written, os.W_OK | os.X_OK):
        return place
    short = os.fsdecode(os.fsencode(os.path.basename(image))[:_KEPT])
    return os.path.join(data_home(), "fimd", "data", f"{short}.{image_id(image)}")


def image_id(path: str) -> str:
    """Return the identifier of an image: 16 hexadecimal digits that stand for its real path."""
    import hashlib  # noqa: PLC0415 - a start does without

    return hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()


def beside(image: str) -> str:
    """Return where FlatImage has the data directory of an image."""
    directory, name = os.path.split(image)
    return os.path.join(directory, f".{name}.data")


def is_below(path: str, directory: str) -> bool:
    """Tell whether a path is a directory's, or below it, as they are written."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
