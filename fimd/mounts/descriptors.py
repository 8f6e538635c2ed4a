"""The daemon's file descriptors: as many as it may have, some of them kept for tidying up."""

import os
import resource
from typing import Final

from fimd.base.errors import MountError

_ENOUGH: Final = 65536
"""More would be slow for those of the programs it starts that close each of them."""
_KEPT: Final = 128
"""For what ends and unmounts, and for what is going on at the same time."""


def take() -> None:
    """Have as many as are allowed: every layer takes one, and a login begins with 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _ENOUGH), most))


def check(layers: int) -> None:
    """Raise MountError where too few are left for a mount of so many layers."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    if used + layers + _KEPT > most:
        raise MountError(
            f"fimd has {used} files open and may have {most}: end some instances, squash layers "
            "(fimctl layer squash), or raise the limit (ulimit -n) and restart fimd"
        )
