"""What sandboxes get of the host's /tmp: all of it, but nothing that is mounted for this user.

Bubblewrap binds a directory with all that is mounted below it, and every mount costs it time. The
runtime tree lies in /tmp by default, with every layer and stack of this user. So before anything is
mounted in the namespace, /tmp is bound to a second place in it. What is mounted on the host later
appears at both, what is mounted in the namespace only where it was mounted (mount_namespaces(7)).
"""

import os
from typing import Any, Final

from fimd.base.errors import MountError
from fimd.base.system_calls import MS_BIND, MS_REC, mount

SHARED: Final = "/tmp"  # noqa: S108 - by FlatImage's contract


def share(arguments: dict[str, Any], _files: list[int]) -> None:
    """Bind /tmp to a directory, which is made. Raises MountError."""
    target = arguments["target"]
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
        mount(SHARED, target, "", MS_BIND | MS_REC, "")
    except OSError as error:
        raise MountError(f"{SHARED} can't be bound to {target}: {error.strerror}") from error
