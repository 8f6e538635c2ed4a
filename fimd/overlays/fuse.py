"""What overlays that are FUSE programs have in common."""

from collections.abc import Sequence

from fimd.mounts.external import mount_by_command
from fimd.mounts.namespace import Namespace
from fimd.overlays.stack import Overlay, StackDirectory


async def mount_fuse(
    program: str,
    options: Sequence[str],
    branches: Sequence[str],
    stack: StackDirectory,
    namespace: Namespace,
    seconds: float,
    *,
    jailed: bool = False,
) -> Overlay:
    """Mount an overlay in the foreground of a process of its own. Raises MountError.

    `branches` are the arguments before the mount point. Paths may be relative to the stack's; which
    is the root directory of a program that is jailed.
    """
    options = [*options, "allow_other"]  # in the namespace: its instances, whoever runs in them
    process = await mount_by_command(
        [program, "-f", "-o", ",".join(options), *branches, "/merged" if jailed else stack.merged],
        serves=("fim_stack", stack.id),
        mount_point=stack.merged,
        namespace=namespace,
        seconds=seconds,
        directory="/" if jailed else stack.path,
        root=stack.path if jailed else "",
    )
    return Overlay(process, stack.merged)
