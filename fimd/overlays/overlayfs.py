"""fuse-overlayfs: overlay semantics in user space.

When a file is created in a directory, or removed, it looks for the names there anew, and then in
every layer, also in those that are hidden from the directory by a deletion or a file in a layer
between. So just above such a layer comes one that deletes each of these names.

It works by paths, and follows links that a program has put in the place of the upper, or of what is
in it, by another way than the overlay: /tmp, or a permission, may show it the data directory. So it
is locked into the stack's directory, with the branches, itself and its libraries.
"""

import asyncio
import os
import shutil
import stat
from contextlib import suppress
from typing import Any, Final

from fimd.base.errors import DataDirectoryError, MountError, UnsupportedError
from fimd.base.limits import Limit
from fimd.mounts.namespace import Namespace
from fimd.mounts.steps import Step
from fimd.overlays.fuse import bind_below, check_device, mount_fuse
from fimd.overlays.locked import furnish as furnish_program
from fimd.overlays.locked import needs
from fimd.overlays.stack import Overlay, StackDirectory, open_holder

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
        "removing replaced files",
        "a layer's file whose place another took by a rename is there again once that is removed, "
        "unless there was another mount between; removed once more it is gone",
        "it takes the renamed file for its own alone",
        view_helps=True,
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
    Limit(
        "holes of layers",
        "a layer's sparse file that is changed takes its whole size",
        "it copies what is zero as well",
    ),
    Limit(
        "looking for holes",
        "what a sparse file has not is taken for data that is zero (SEEK_DATA, SEEK_HOLE)",
        "it does not know the request",
    ),
    Limit("birth times", "files have none", "it does not know the request"),
    Limit(
        "long paths",
        "a path from the root ends at 4096 bytes (ENAMETOOLONG), however it is come to",
        "it knows directories by their paths",
    ),
    Limit("long names", "names end at 251 bytes (ENAMETOOLONG)", "it marks deletions by '.wh.'"),
)


def begin(stack: StackDirectory, seconds: float) -> Step:
    """Return the step that mounts what the program needs in the directory that locks it in."""
    program = _program()
    arguments = {
        "path": stack.path,
        "upper": stack.upper,
        "work": stack.work,
        "layers": stack.layers,
        "needs": needs(program),
    }
    return Step(f"{__name__}:furnish", "overlay", seconds, arguments)


async def serve(
    stack: StackDirectory, furnished: tuple[str, str], namespace: Namespace, seconds: float
) -> Overlay:
    """Start the program."""
    try:
        marked = await asyncio.to_thread(_make_whiteouts, stack)
    except OSError as error:
        raise MountError(f"fuse-overlayfs: its deletions can't be made: {error}") from error
    upper, work = furnished
    lower = ":".join(f"/{name}".replace("/layers/", "/lower/") for name in stack.lower(marked))
    # layers have no access lists, and to ask them for some is an error for all but the owner
    options = [f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", "noacl"]
    return await mount_fuse(_program(), options, [], stack, namespace, seconds, jailed=True)


def _program() -> str:
    check_device()
    program = shutil.which("fuse-overlayfs")
    if program is None:
        raise UnsupportedError("the overlay overlayfs needs fuse-overlayfs, which is not installed")
    return program


def furnish(arguments: dict[str, Any], _files: list[int]) -> tuple[str, str]:
    """Do so in this process's namespace.

    Returns where the upper and the work directory are there. Raises MountError, DataDirectoryError.
    """
    path = arguments["path"]
    holder, name = open_holder(path, arguments["upper"])
    try:
        work = os.path.join("work", os.path.basename(path))
        try:
            facts = os.stat(work, dir_fd=holder, follow_symlinks=False)
            found = [facts.st_dev, facts.st_ino]
        except OSError:
            found = []
        if found != arguments["work"]:
            if name == "root":
                raise DataDirectoryError(f"{path} has another work directory: try again")
            work = "workdir"  # FlatImage 1.x's own, in the directory that has its upper
            with suppress(FileExistsError):
                os.mkdir(work, 0o700, dir_fd=holder)
        sources = {f"lower/{layer}": f"layers/{layer}" for layer in range(arguments["layers"])}
        bind_below(path, {**sources, "data": f"/proc/self/fd/{holder}"})
        furnish_program(path, arguments["needs"])
    except OSError as error:
        raise MountError(f"fuse-overlayfs: its branches can't be bound: {error}") from error
    finally:
        os.close(holder)
    return f"/data/{name}", f"/data/{work}"


def _make_whiteouts(stack: StackDirectory) -> set[int]:
    """Make the layers of deletions; return the numbers of the layers that have one above."""
    for index, paths in stack.ghosts.items():
        top = os.path.join(os.fsencode(stack.path), b"marks", b"%d" % index)
        for path in paths:
            whiteout = os.path.join(top, path)
            os.makedirs(os.path.dirname(whiteout), exist_ok=True)
            os.mknod(whiteout, stat.S_IFCHR, os.makedev(0, 0))
    return set(stack.ghosts)
