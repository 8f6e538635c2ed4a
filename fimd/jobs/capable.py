"""Reading one's own files whatever their mode.

Programs that believe to be root leave files of mode 000 (/etc/shadow of some distributions) in an
upper directory. Their owner may not open them, and changing their modes would change the tree. In
a user namespace in which the user keeps the own number, capabilities hold over the user's files.

A program is started there by unshare(1): an interpreter that changed its own namespace would
import what it needs next by the new one's rights.
"""

import os
import subprocess
from typing import Final

CAPABLE: Final = ("unshare", "--user", "--map-current-user", "--keep-caps", "--")
"""The beginning of a command that has them."""


def can_become_capable(directory: str) -> bool:
    """Tell whether everything below a directory belongs to this user and group, who is not root.

    Other owners could not be told apart from within the namespace, which some systems forbid.
    """
    own = (os.getuid(), os.getgid())
    if own[0] == 0 or subprocess.run([*CAPABLE, "true"], check=False, timeout=10).returncode:
        return False
    found = [os.lstat(directory)]
    for path, names, files in os.walk(directory):
        found += (os.lstat(os.path.join(path, name)) for name in (*names, *files))
    return all((facts.st_uid, facts.st_gid) == own for facts in found)
