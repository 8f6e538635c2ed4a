"""What overlays that are FUSE programs have in common."""

import os
from collections.abc import Mapping, Sequence

from fimd.base.errors import UnsupportedError
from fimd.base.system_calls import MS_BIND, mount
from fimd.mounts import fuse_device
from fimd.mounts.external import mount_by_command
from fimd.mounts.namespace import Namespace
from fimd.overlays.stack import Overlay, StackDirectory


def check_device() -> None:
    """Raise UnsupportedError where FUSE is missing."""
    reason = fuse_device.missing()
    if reason is not None:
        raise UnsupportedError(reason)


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


def bind_below(directory: str, sources: Mapping[str, str]) -> None:
    """Mount directories below another one, each by its place there. Raises OSError.

    It is for a program that is locked into it. Places are made; sources that are no absolute paths
    are below the directory, too.
    """
    for place, source in sources.items():
        target = os.path.join(directory, place)
        os.makedirs(target, exist_ok=True)
        mount(os.path.join(directory, source), target, "", MS_BIND, "")
