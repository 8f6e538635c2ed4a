"""Subordinate ids for an account that has none, given in a mount namespace (subuid(5))."""

import os
from pathlib import Path

import pytest

from tests.support.account import Account

FIRST = 300_000


def with_ranges(account: Account, scratch: Path, count: int, first: int = FIRST) -> str:
    """The shell's words that give an account that many subordinate ids."""
    if os.getuid() != 0:
        pytest.skip("only root can give ids to somebody")
    if not Path("/usr/bin/newuidmap").exists():
        pytest.skip("newuidmap (package uidmap) is not installed")
    file = scratch / "ranges"
    file.write_text(f"nobody:7:7\n\n:::\n{account.name}:{first}:{count}\n")
    file.chmod(0o644)
    names = ("/etc/subuid", "/etc/subgid")
    return "\n".join(f"touch {name}; mount --bind {file} {name}" for name in names)


def wrapped(account: Account, scratch: Path, first: int = FIRST) -> list[str]:
    """What a session of a plain user is started by, so that its daemon has 65536 of them."""
    if account.uid == 0:
        pytest.skip("root of the machine needs no ids")
    setup = with_ranges(account, scratch, 65536, first)
    become = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    shell = ["sh", "-ec", f'{setup}\nexec "$@"', "sh", "setpriv", *become]
    return ["unshare", "--mount", "--propagation", "slave", "--", *shell]
