"""Capabilities: what a program inside may do that others may not."""

from typing import Final

ROOT: Final = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"),  # to unpack and own any file
    *("SETUID", "SETGID", "SETPCAP"),  # to become another user, and to give rights up
    "KILL",  # to end what that other user has started
    "SYS_CHROOT",  # as package managers do for a root of their own
    "NET_BIND_SERVICE",  # ports below 1024
    "AUDIT_WRITE",  # which login programs insist on
)
"""What root inside has. They hold for what the sandbox shows, and within its own namespaces.

Left out are those by which root of a machine would get out of its sandbox: SYS_ADMIN (mounts),
SYS_PTRACE, SYS_MODULE and their like, DAC_READ_SEARCH (open_by_handle_at(2) opens any file of a
file system of which a part is shown), MKNOD (a disk's device), and NET_RAW and NET_ADMIN, since
the network is the host's.
"""


def options(*, root: bool) -> tuple[str, ...]:
    """Return what has bubblewrap keep no capability, or those of root inside."""
    added = (word for name in ROOT for word in ("--cap-add", f"CAP_{name}"))
    return ("--cap-drop", "ALL", *(added if root else ()))
