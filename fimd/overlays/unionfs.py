"""unionfs-fuse: works everywhere, and under the case-insensitive view."""

import os
import shutil

from fimd.errors import UnsupportedError
from fimd.mounts.external import mount_by_command
from fimd.mounts.table import MountTable
from fimd.overlays.stack import Overlay, StackDirectory


async def mount(stack: StackDirectory, table: MountTable, seconds: float) -> Overlay:
    """Mount the union in the foreground of a process of its own."""
    program = shutil.which("unionfs") or shutil.which("unionfs-fuse")
    if program is None:
        raise UnsupportedError("the overlay unionfs needs unionfs-fuse, which is not installed")
    options = ["cow", "hide_meta_files", f"fsname=fimd-{stack.id}"]
    if os.getuid() == 0:
        options += ["allow_other"]  # programs that drop their privileges see their own root
    branches = f"upper=RW:{stack.top_down('layers/{}=RO')}"
    process = await mount_by_command(
        [program, "-f", "-o", ",".join(options), branches, stack.merged],
        mount_point=stack.merged,
        table=table,
        seconds=seconds,
        directory=stack.path,
    )
    return Overlay(process, stack.merged, (), stack.merged)
