"""What can't be removed from a data directory: kept under another name, so that nothing waits.

Another user's files, or what is mounted there, would otherwise be tried again at every start. It is
told once; `fimctl doctor IMAGE` shows it, and `fimctl prune IMAGE` tries again to remove it.
"""

import os
import secrets
from typing import Final

from fimd.base.removal import remove_tree
from fimd.commits.opened import OpenData

LOST: Final = "lost-"


def new_lost_name() -> str:
    """Return a name in tmp/ that nobody can have taken."""
    return f"{LOST}{secrets.token_hex(8)}"


def lose(
    data: OpenData, name: str, lost: str | None = None, *, directory: int | None = None
) -> str:
    """Keep an entry of tmp/, or of another `directory`, as lost; return what messages call it now.

    Raises OSError.
    """
    lost = lost or new_lost_name()
    source = data.tmp if directory is None else directory
    os.rename(name, lost, src_dir_fd=source, dst_dir_fd=data.tmp)
    return os.path.join(data.path, "tmp", lost)


def find_lost(data: OpenData) -> list[str]:
    """Return what is kept so: names in tmp/."""
    return sorted(name for name in os.listdir(data.tmp) if name.startswith(LOST))


def remove_lost(data: OpenData) -> list[str]:
    """Remove what is kept so, as far as that can be; return the names of what had to stay."""
    for name in find_lost(data):
        try:
            remove_tree(data.tmp, name)
        except OSError:
            continue
    return find_lost(data)
