"""What an image is called, where its data directory is, and where the daemon is reached.

The client asks at every start, so this imports little.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEFAULT_GLOBAL: Final = "/tmp/fim"  # noqa: S108 - FlatImage's users know it; who opens it checks

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


def find_global() -> str:
    """Return where the runtime trees are: FIM_DIR_GLOBAL, or what this user has used before."""
    given = os.environ.get("FIM_DIR_GLOBAL")
    if given:
        return os.path.abspath(given)
    instead = runtime_global()
    if instead is not None and os.path.isdir(os.path.join(instead, "app", f"u{os.getuid()}")):
        return instead
    return DEFAULT_GLOBAL


def runtime_global() -> str | None:
    """Return the place in XDG_RUNTIME_DIR, None where this user has no such directory."""
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}"):
        try:
            owner = os.stat(place).st_uid
        except OSError:
            continue
        if place.startswith("/") and owner == os.getuid() and os.path.isdir(place):
            return os.path.join(os.path.realpath(place), "fim")
    return None


def socket_path(base: str) -> str:
    """Return where the daemon's own socket is, by what `find_global` returned."""
    return os.path.join(base, "app", f"u{os.getuid()}", "bus")


def is_below(path: str, directory: str) -> bool:
    """Tell whether a path is a directory's, or below it, as they are written."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
