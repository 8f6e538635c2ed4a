"""Kernel overlayfs, mounted in the user's namespace: a plain user may not have it elsewhere."""

import errno
import os
from typing import Any, Final

from fimd.base.errors import MountError, UnsupportedError
from fimd.base.limits import Limit
from fimd.base.system_calls import mount as mount_filesystem
from fimd.mounts.steps import Step
from fimd.overlays.stack import StackDirectory, open_checked
from fimd.trees.whiteouts import whiteouts

_MOST_LAYERS: Final = 500
"""OVL_MAX_STACK of the kernel, fs/overlayfs/params.h."""

_INDEX: Final = "the kernel's index of links is for who is root on the machine"

LIMITS: Final = (
    Limit("links of layers", "hard links that a layer has part when one is changed", _INDEX),
    Limit(
        "numbers of layers' links",
        "a layer's file and a hard link made of it have two inode numbers",
        _INDEX,
        view_helps=True,
    ),
    Limit(
        "directories of layers",
        "renaming one is refused (EXDEV), and mv copies it",
        "the kernel follows such a name only for who is root on the machine",
    ),
    Limit(
        "holes of layers",
        "a layer's sparse file that is changed takes its whole size",
        "it asks the layer's server where the holes are (lseek), and pyfuse3 has no such request",
    ),
)


def begin(stack: StackDirectory, seconds: float) -> Step:
    """Return the step that mounts the overlay."""
    if stack.layers > _MOST_LAYERS:
        raise UnsupportedError(
            f"kernel overlayfs takes {_MOST_LAYERS} layers, and these are {stack.layers}: squash "
            "some of them (fimctl layer squash)"
        )
    arguments = {
        "path": stack.path,
        "upper": stack.upper,
        "work": stack.work,
        "lower": stack.top_down(),
        "deletions": _deletions(stack) if stack.is_unpacked else [],
        "source": f"fimd-{stack.id}",
    }
    return Step(f"{__name__}:mount_here", "overlay", seconds, arguments, again=True)


def _deletions(stack: StackDirectory) -> list[str]:
    """Return a deletion of each layer that has any, by its path in the layers' directory."""
    found = ((index, min(whiteouts(one), default=None)) for index, one in enumerate(stack.sources))
    return [f"{index}/{os.fsdecode(path)}" for index, path in found if path is not None]


def mount_here(arguments: dict[str, Any], _files: list[int]) -> dict[str, str]:
    """Mount the overlay in this process's namespace, and return its root.

    Raises MountError, DataDirectoryError.
    """
    path = arguments["path"]
    opened = [open_checked(path, name, arguments[name]) for name in ("upper", "work")]
    upper, work = (f"/proc/self/fd/{descriptor}" for descriptor in opened)
    os.chdir(os.path.join(path, "layers"))  # so that hundreds of names fit
    if not all(map(os.path.lexists, arguments["deletions"])):
        raise MountError("kernel overlay: the store's file system keeps no devices for deletions")
    options = f"lowerdir={arguments['lower']},upperdir={upper},workdir={work},userxattr"
    try:
        mount_filesystem(arguments["source"], "../merged", "overlay", 0, options)
    except OSError as error:
        reason = error.strerror
        if error.errno == errno.EINVAL:  # for which the kernel has its reasons in its log alone
            reason = f"it can't keep changes on the file system of {os.readlink(f'{path}/upper')}"
        raise MountError(f"kernel overlay: {reason}") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return {"root": os.path.join(path, "merged")}
