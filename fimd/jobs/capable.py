"""Reading one's own files whatever their mode.

Programs that believe to be root leave files of mode 000 (/etc/shadow of some distributions) in an
upper directory. Their owner may not open them, and changing their modes would change the tree. In
a user namespace in which the user keeps the own number, capabilities hold over the user's files.
"""

import ctypes
import os
from typing import Final

CAPABLE: Final = "capable"
_CLONE_NEWUSER: Final = 0x10000000


def can_become_capable(directory: str) -> bool:
    """Tell whether everything below a directory belongs to this user and group, who is not root.

    Other owners could not be told apart from within the namespace.
    """
    own = (os.getuid(), os.getgid())
    if own[0] == 0:
        return False
    found = [os.lstat(directory)]
    for path, names, files in os.walk(directory):
        found += (os.lstat(os.path.join(path, name)) for name in (*names, *files))
    return all((facts.st_uid, facts.st_gid) == own for facts in found)


def become_capable() -> None:
    """Enter a user namespace; where that is forbidden nothing happens.

    For a process with a single thread.
    """
    uid, gid = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) != 0:
        return
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{gid} {gid} 1"),
        ("uid_map", f"{uid} {uid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
