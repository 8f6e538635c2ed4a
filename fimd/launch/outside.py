"""The programs that are executed outside of a sandbox to make one, each by its absolute path.

They are looked for where the user has programs, before anything that an image says is looked at:
nothing that a sandbox could write may come to be executed here.
"""

import os
import shutil
from collections.abc import Sequence
from typing import Final

from fimd.base.errors import UnsupportedError

_REMEDIES: Final = {
    "bwrap": "bubblewrap (bwrap) is not installed: install it",
    "nsenter": "nsenter is not installed: install util-linux",
}


def find(name: str, path: str | None) -> str:
    """Return the absolute path of a program. Raises UnsupportedError where there is none.

    `path` is the caller's PATH; the daemon's own comes after it, for callers who have none.
    Directories that are not named by an absolute path are nobody's to name.
    """
    directories = f"{path or ''}:{os.environ.get('PATH') or os.defpath}".split(":")
    absolute = dict.fromkeys(entry for entry in directories if entry.startswith("/"))
    found = shutil.which(name, path=":".join(absolute)) if absolute else None
    if found is None:
        raise UnsupportedError(_REMEDIES.get(name, f"{name} is not installed: install it"))
    return found


def command(words: Sequence[str], path: str | None) -> tuple[str, ...]:
    """Return a command with the absolute path of its program; the empty one as it is."""
    return (find(words[0], path), *words[1:]) if words else ()
