"""fuse-overlayfs: overlay semantics in user space."""

import os

from fimd.mounts.external import mount_by_command
from fimd.mounts.output import Outputs
from fimd.mounts.table import MountTable
from fimd.overlays.stack import Overlay, StackDirectory

_UNCACHED = "timeout=0"
"""With a timeout it keeps lists of names, and from these it shows what a directory of a lower layer
held in a new one of the same name (https://github.com/containers/fuse-overlayfs/issues/324)."""


async def mount(
    stack: StackDirectory, table: MountTable, outputs: Outputs, seconds: float
) -> Overlay:
    """Mount the overlay in the foreground of a process of its own."""
    options = [f"lowerdir={stack.top_down('layers/{}')}", "upperdir=upper", "workdir=work"]
    options += [_UNCACHED]
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
