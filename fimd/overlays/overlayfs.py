"""fuse-overlayfs: overlay semantics in user space."""

import os
from typing import Final

from fimd.limits import Limit
from fimd.mounts.external import mount_by_command
from fimd.mounts.output import Outputs
from fimd.mounts.table import MountTable
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
    Limit("long names", "names end at 251 bytes (ENAMETOOLONG)", "it marks deletions by '.wh.'"),
)


async def mount(
    stack: StackDirectory, table: MountTable, outputs: Outputs, seconds: float
) -> Overlay:
    """Mount the overlay in the foreground of a process of its own."""
    options = [f"lowerdir={stack.top_down('layers/{}')}", "upperdir=upper", "workdir=work"]
    if os.getuid() == 0:
        options += ["allow_other"]  # programs that drop their privileges see their own root
    else:
        options += [f"squash_to_uid={os.getuid()}", f"squash_to_gid={os.getgid()}"]
    process = await mount_by_command(
        ["fuse-overlayfs", "-f", "-o", ",".join(options), stack.merged],
        serves=("fim_stack", stack.id),
        mount_point=stack.merged,
        table=table,
        outputs=outputs,
        seconds=seconds,
        directory=stack.path,
    )
    return Overlay(process, stack.merged, (), stack.merged)
