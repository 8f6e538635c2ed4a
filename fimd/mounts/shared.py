"""What sandboxes get of the host's /tmp and /sys, made ready for all of them.

Of /tmp that is all of it, but nothing that is mounted for this user.

Bubblewrap binds a directory with all that is mounted below it, and every mount costs it time. The
runtime tree lies in /tmp by default, with every layer and stack of this user. So before anything is
mounted in the namespace, /tmp is bound to a second place in it. What is mounted on the host later
appears at both, what is mounted in the namespace only where it was mounted (mount_namespaces(7)).

What a sandbox may not do with a mount, bubblewrap says of each by itself, also of all that is
mounted in /sys, unless it is said already. So it is said here, in the namespace, once.
"""

import os
from contextlib import suppress
from typing import Any, Final

from fimd.base.errors import MountError
from fimd.base.system_calls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_REC,
    mount,
    restrict_mounts,
)

SHARED: Final = "/tmp"  # noqa: S108 - by FlatImage's contract
_SYSTEM: Final = "/sys"


def share(arguments: dict[str, Any], _files: list[int]) -> None:
    """Bind /tmp to a directory, which is made, and restrict both. Raises MountError."""
    target = arguments["target"]
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
        mount(SHARED, target, "", MS_BIND | MS_REC, "")
    except OSError as error:
        raise MountError(f"{SHARED} can't be bound to {target}: {error.strerror}") from error
    for path, more in ((target, 0), (_SYSTEM, MOUNT_ATTR_RDONLY)):
        with suppress(OSError):  # as with older kernels: bubblewrap does it in each sandbox
            restrict_mounts(path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | more)
