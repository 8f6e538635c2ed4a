"""fuse-overlayfs: overlay semantics in user space.

When a file is created in a directory, or removed, it looks for the names there anew, and then in
every layer, also in those that are hidden from the directory by a deletion or a file in a layer
between. So just above such a layer comes one that deletes each of these names.
"""

import asyncio
import os
import stat
from typing import Final

from fimd.base.errors import MountError
from fimd.base.limits import Limit
from fimd.mounts.namespace import Namespace
from fimd.overlays.fuse import mount_fuse
from fimd.overlays.stack import Overlay, StackDirectory

_GHOSTS: Final = "it looks into the layers for every name that it does not know"

LIMITS: Final = (
    Limit("temporary files", "O_TMPFILE is refused (EOPNOTSUPP)", "it is not in its protocol"),
    Limit(
        "names of links",
        "hard links that a layer has change together, and the change is kept under one name only",
        "it knows a layer's file by its inode number, whatever name it was opened by",
    ),
    Limit(
        "directories of layers",
        "renaming one is refused (EXDEV), and mv copies it",
        "it does not follow names from an upper directory into a lower one",
    ),
    Limit(
        "directories made again",
        "one in the place of a deleted directory does not take its directories' names (EEXIST) "
        "until the next mount",
        _GHOSTS,
    ),
    Limit(
        "names of directories made again",
        "one in the place of a deleted directory has its names, though not listed, until the next "
        "mount",
        _GHOSTS,
        view_helps=True,
    ),
    Limit(
        "renaming directories made again",
        "renaming one in the place of a layer's deleted directory brings that back",
        "it marks no deletion where it takes the renamed directory for its own alone",
    ),
    Limit(
        "special bits",
        "a layer's directory that is changed loses its set-group-ID bit",
        "it copies them up by calls that clear these bits",
    ),
    Limit(
        "special files",
        "giving a layer's fifo, socket or device another name or other attributes leaves an empty "
        "file, or fails (EIO) as well",
        "it copies every file up as a regular one",
    ),
    Limit(
        "modes of fifos",
        "a new fifo may have the mode that it was asked for whatever the umask",
        "it heeds the umask for everything else that is made",
        view_helps=True,
    ),
    Limit("long names", "names end at 251 bytes (ENAMETOOLONG)", "it marks deletions by '.wh.'"),
)


async def mount(stack: StackDirectory, namespace: Namespace, seconds: float) -> Overlay:
    """Mount the overlay."""
    try:
        marked = await asyncio.to_thread(_make_whiteouts, stack)
    except OSError as error:
        raise MountError(f"fuse-overlayfs: its deletions can't be made: {error}") from error
    lower = ":".join(stack.lower(marked))
    options = [f"lowerdir={lower}", "upperdir=upper", "workdir=work"]
    return await mount_fuse("fuse-overlayfs", options, [], stack, namespace, seconds)


def _make_whiteouts(stack: StackDirectory) -> set[int]:
    """Make the layers of deletions; return the numbers of the layers that have one above."""
    for index, paths in stack.ghosts.items():
        top = os.path.join(os.fsencode(stack.path), b"marks", b"%d" % index)
        for path in paths:
            whiteout = os.path.join(top, path)
            os.makedirs(os.path.dirname(whiteout), exist_ok=True)
            os.mknod(whiteout, stat.S_IFCHR, os.makedev(0, 0))
    return set(stack.ghosts)
