"""Who a program is inside: uid, gid, name, home and shell (FlatImage's table of identities)."""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_NOBODY: Final = 2**32 - 1
"""The number that stands for none (chown(2))."""
_DIGITS: Final = len(str(_NOBODY))


@dataclass(frozen=True)
class Identity:
    """A line of /etc/passwd."""

    uid: int
    gid: int
    name: str
    home: str
    shell: str

    @property
    def passwd(self) -> str:
        """The one line of the /etc/passwd inside. What would break the line is left out."""
        fields = (self.name, "x", str(self.uid), str(self.gid), self.name, self.home, self.shell)
        return ":".join(field.replace(":", "").replace("\n", "") for field in fields) + "\n"


def resolve(
    *, root: bool, stored: Mapping[str, str], environment: Mapping[str, str], shell: str
) -> Identity:
    """Return the identity inside.

    `stored` is the image's own environment (`fim-env`), `environment` the caller's. Root it is
    where asked for, where `UID=0` is stored, and where the caller is root.
    """
    shell = stored.get("SHELL", shell)
    uid = _number(stored.get("UID"), os.getuid())
    if root or 0 in {uid, os.getuid()}:
        return Identity(0, 0, "root", "/root", shell)
    try:
        account = pwd.getpwuid(os.getuid())
        name, home = account.pw_name, account.pw_dir
    except KeyError:  # a uid that no passwd knows, as in containers
        name, home = str(os.getuid()), "/"
    return Identity(
        uid,
        _number(stored.get("GID"), os.getgid()),
        stored.get("USER") or environment.get("USER") or name,
        stored.get("HOME") or environment.get("HOME") or home,
        shell,
    )


def _number(text: str | None, default: int) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        return default
    return int(text) if int(text) < _NOBODY else default
