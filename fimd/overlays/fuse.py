"""What overlays that are FUSE programs have in common."""

import os
from collections.abc import Sequence

from fimd.mounts.external import mount_by_command
from fimd.mounts.output import Outputs
from fimd.mounts.table import MountTable
from fimd.overlays.stack import Overlay, StackDirectory


async def mount_fuse(
    program: str,
    options: Sequence[str],
    branches: Sequence[str],
    stack: StackDirectory,
    table: MountTable,
    outputs: Outputs,
    seconds: float,
) -> Overlay:
    """Mount an overlay in the foreground of a process of its own. Raises MountError.

    `branches` are the arguments before the mount point. Paths may be relative to the stack's.
    """
    if os.getuid() == 0:
        options = [*options, "allow_other"]  # programs that drop their privileges see their root
    process = await mount_by_command(
        [program, "-f", "-o", ",".join(options), *branches, stack.merged],
        serves=("fim_stack", stack.id),
        mount_point=stack.merged,
        table=table,
        outputs=outputs,
        seconds=seconds,
        directory=stack.path,
    )
    return Overlay(process, stack.merged, (), stack.merged)
