"""Whom a sandbox knows: /etc/passwd and /etc/group.

Root inside has the image's own files, and may change them. Others are shown ones of fimd's instead,
as FlatImage has it: a line of passwd for who the program is, and the host's groups; whom the image
knows besides comes after these. So is root where the image knows of no root.
"""

import os
import stat
from collections.abc import Mapping
from typing import Final

from fimd.launch.identity import Identity

PLACES: Final = {"passwd": "/etc/passwd", "group": "/etc/group"}
"""Where they are inside, by their names in the instance's directory."""
_FIELDS: Final = {"passwd": 7, "group": 4}
_MOST: Final = 1 << 20
"""Bytes of a file that are looked at."""


def first(who: Identity) -> dict[str, str]:
    """Return what files of fimd's begin with, by their names."""
    return {"passwd": who.passwd, "group": read(PLACES["group"])}


def shown(who: Identity, own: Mapping[str, str]) -> dict[str, str]:
    """Return the texts that are shown in place of the image's `own`, by their names.

    What is left out is the image's own to show.
    """
    return {
        name: _joined(text, own.get(name, ""), _FIELDS[name])
        for name, text in first(who).items()
        if who.uid != 0 or not _knows_root(own.get(name, ""))
    }


def read(path: str) -> str:
    """Return the text of such a file, empty where there is none; what it says is its writer's."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return os.fsdecode(file.read(_MOST))
    except OSError:
        pass
    return ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # which a pipe would have it do


def _joined(text: str, own: str, fields: int) -> str:
    """Add those of the image's lines that have other names; a line that is none is left out."""
    known = {line.partition(":")[0] for line in text.split("\n")}
    added = [
        f"{line}\n"
        for line in own.split("\n")
        if line.count(":") == fields - 1 and line.partition(":")[0] not in known
    ]
    end = "\n" if added and text and not text.endswith("\n") else ""
    return text + end + "".join(added)


def _knows_root(own: str) -> bool:
    """Tell whether a file of the image has an entry of the number 0, which both have third."""
    return any(line.split(":")[2:3] == ["0"] for line in own.split("\n"))
