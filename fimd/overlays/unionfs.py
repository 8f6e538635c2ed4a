"""unionfs-fuse: a union of directories in user space.

It knows no deletions in read-only branches but its own marks, and a mark hides a path in the
branches below the one that holds it. Nor does a file hide what is below a directory of the same
name in a lower branch, once there is a directory again. So just above each layer that deletes
something, or that has directories which the next one replaces, comes a branch with nothing but
marks, made from the layers' metadata.

What it copies up from a layer it spoils (fimd.casefold.copy_up), so there is always a view over it.

It works by paths, and follows links that a program has made in the upper directory. So it is locked
into the stack's directory, with the branches, itself and its libraries. (It has an option for that,
chroot, with which it heeds no mark of a directory for what is below.)
"""

import asyncio
import os
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import structlog

from fimd.base.errors import MountError, UnsupportedError
from fimd.base.limits import Limit
from fimd.mounts.namespace import Namespace
from fimd.mounts.steps import Step
from fimd.overlays.fuse import bind_below, check_device, mount_fuse
from fimd.overlays.locked import furnish, needs
from fimd.overlays.stack import Overlay, StackDirectory, open_checked
from fimd.trees.hidden import hidden_directories
from fimd.trees.marks import HIDDEN, UNIONFS_DIRECTORIES
from fimd.trees.whiteouts import whiteouts

log = structlog.get_logger(__name__)

_LONGEST_NAME: Final = 255
_PLACE: Final = "union"

_INODES: Final = "it knows files by their paths: to the kernel each name is a file of its own"

LIMITS: Final = (
    Limit(
        "links",
        "hard links show each other's changes only after a second",
        _INODES,
    ),
    Limit(
        "replaced files",
        "opening a file while another takes its name may fail (ENOENT); it is there a moment later",
        _INODES,
    ),
    Limit("links of layers", "hard links that a layer has part when one is changed", _INODES),
    Limit(
        "directories of layers",
        "renaming one is refused (EXDEV), and mv copies it",
        "it moves what the topmost branch has of it, and loses the rest",
    ),
    Limit(
        "exchanging names",
        "RENAME_EXCHANGE is refused (EINVAL)",
        "it has no rename with flags",
    ),
    Limit(
        "locks by another name",
        "a lock by one hard link does not keep out who comes by another that was made before the "
        "mount",
        _INODES,
    ),
    Limit(
        "long paths",
        "a path from the root ends at about 1000 bytes (ENAMETOOLONG, ERANGE), however it is come "
        "to",
        "it has no room for more",
    ),
    Limit("allocated room", "fallocate is refused (EOPNOTSUPP)", "it is not in its protocol"),
    Limit("extended attributes", "they are refused (EOPNOTSUPP)", "it is built without them"),
)


def begin(stack: StackDirectory, seconds: float) -> Step:
    """Return the step that mounts what the program needs in the directory that locks it in."""
    arguments = {
        "path": stack.path,
        "upper": stack.upper,
        "layers": stack.layers,
        "needs": needs(_program()),
    }
    return Step(f"{__name__}:bind_branches", "union", seconds, arguments)


async def serve(
    stack: StackDirectory, _bound: None, namespace: Namespace, seconds: float
) -> Overlay:
    """Start the program."""
    marked = await asyncio.to_thread(_make_marks, stack, marks_directory())
    options = ["cow", "hide_meta_files", "statfs_omit_ro", f"fsname=fimd-{stack.id}"]
    names = list(stack.lower(marked))
    branches = ":".join([f"/{_PLACE}/upper=RW", *(f"/{_PLACE}/{name}=RO" for name in names)])
    overlay = await mount_fuse(
        _program(), options, [branches], stack, namespace, seconds, jailed=True
    )
    mounted = ["upper", *(name for name in names if name.startswith("layers/"))]
    place = os.path.join(stack.path, _PLACE)
    return replace(overlay, branches=tuple(os.path.join(place, name) for name in mounted))


def bind_branches(arguments: dict[str, Any], _files: list[int]) -> None:
    """Do so in this process's namespace. Raises MountError, DataDirectoryError."""
    path = arguments["path"]
    upper = open_checked(path, "upper", arguments["upper"])
    try:
        names = (f"layers/{layer}" for layer in range(arguments["layers"]))
        sources = {f"{_PLACE}/{name}": name for name in names}
        bind_below(path, {**sources, f"{_PLACE}/upper": f"/proc/self/fd/{upper}"})
        furnish(path, arguments["needs"])
    except OSError as error:
        raise MountError(f"unionfs: its branches can't be bound: {error.strerror}") from error
    finally:
        os.close(upper)


def _program() -> str:
    check_device()
    program = shutil.which("unionfs") or shutil.which("unionfs-fuse")
    if program is None:
        raise UnsupportedError("the overlay unionfs needs unionfs-fuse, which is not installed")
    return program


def marks_directory() -> bytes:
    """Return where the unionfs of this machine keeps its marks, at the top of a branch.

    Raises UnsupportedError where there is no unionfs.
    """
    return _marks_directory(_program())


@lru_cache
def _marks_directory(program: str) -> bytes:
    """Find the name, which is a constant of the program.

    It is .unionfs-fuse up to release 1.0 and .unionfs since.
    """
    plain, suffixed = UNIONFS_DIRECTORIES
    return suffixed if suffixed + b"/" in Path(program).read_bytes() else plain


def _make_marks(stack: StackDirectory, directory: bytes) -> set[int]:
    """Make the branches of marks; return the numbers of the layers that have one."""
    marked = set()
    hidden = hidden_directories(stack.sources)
    replaced: frozenset[bytes] = frozenset()
    for index, source in reversed(list(enumerate(stack.sources))):
        deleted = whiteouts(source)
        hides, replaced = deleted | replaced, hidden[index] - deleted
        if not hides:
            continue
        marked.add(index)
        top = os.path.join(
            os.fsencode(stack.path), _PLACE.encode(), b"marks", b"%d" % index, directory
        )
        os.makedirs(top)
        for path in hides:
            parent, name = os.path.split(os.path.join(top, path))
            if len(name) + len(HIDDEN) > _LONGEST_NAME:
                log.warning("name too long for unionfs to hide", path=path, fim_layer=source.id)
                continue
            os.makedirs(parent, exist_ok=True)
            with open(os.path.join(parent, name + HIDDEN), "xb"):
                pass
    return marked
