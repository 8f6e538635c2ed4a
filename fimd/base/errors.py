"""Every error that fimd shows to its users: one class each, with its D-Bus name.

A message says what failed, on what, and what to do about it; it is all that a user sees.
"""

import errno
import os
from typing import ClassVar


class FimError(Exception):
    """Something that a user asked for can't be done. Also the error of last resort."""

    name: ClassVar[str] = "Failed"


class InvalidArgumentError(FimError):
    """An argument, an option or a setting is not what its place asks for."""

    name = "InvalidArgument"


class AccessDeniedError(FimError):
    """The caller, or this user, may not do that."""

    name = "AccessDenied"


class NotFoundError(FimError):
    """There is no such file, instance, layer or job."""

    name = "NotFound"


class NotAnImageError(FimError):
    """The file is no FlatImage, or its structure is damaged."""

    name = "NotAnImage"


class BadLayerError(FimError):
    """A layer is damaged or is no DwarFS image."""

    name = "BadLayer"


class DataDirectoryError(FimError):
    """The data directory can't be made or written."""

    name = "DataDirectory"


class BusyError(FimError):
    """Somebody else uses what the operation needs for itself."""

    name = "Busy"


class MountError(FimError):
    """A filesystem could not be mounted or unmounted."""

    name = "MountFailed"


class UnsupportedError(FimError):
    """The kernel or the machine lacks what the operation needs."""

    name = "Unsupported"


class ProcessGoneError(FimError):
    """The process that an instance is to be keyed by does not exist (any more)."""

    name = "ProcessGone"


class ShuttingDownError(FimError):
    """The daemon is about to leave and takes no new work."""

    name = "ShuttingDown"


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def no_room(error: OSError) -> str:
    """Return the sentence for an error of NO_ROOM, wherever it was met."""
    place = error.filename2 or error.filename
    shown = os.fsdecode(place) if place else "what fimd keeps"
    return f"{shown} can't be written: {error.strerror}: make room there, for files and in bytes"


def named(name: str, message: str) -> FimError:
    """Return the error that has a D-Bus name: what another process of fimd's said went wrong."""
    kinds = {kind.name: kind for kind in FimError.__subclasses__() if "name" in vars(kind)}
    return kinds.get(name, FimError)(message)
