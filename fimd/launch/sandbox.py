"""Whether bubblewrap can make a sandbox here, found out by making one.

The client becomes bubblewrap, so what bubblewrap refuses would reach the user in its own words and
with its own exit code, after everything was mounted.
"""

import os
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.mounts.holder import remedy
from fimd.mounts.process import CommandError, run

_PROGRAM: Final = "bwrap"
_SECONDS: Final = 10.0
_PROFILE: Final = "bwrap an AppArmor profile with 'userns,',"


class Sandbox:
    """Remembers that a sandbox could be made; where it couldn't, every start tries again."""

    def __init__(self) -> None:
        self._works = False
        self.no_processes = ""
        """Why no sandbox has a process namespace here; nothing where they have."""

    async def check(self) -> None:
        """Make a sandbox and leave it. Raises UnsupportedError, with the remedy."""
        if self._works:
            return
        self.no_processes = await _refusal("--unshare-pid", "--proc", "/proc")
        if self.no_processes and (reason := await _refusal()):
            raise UnsupportedError(
                f"no sandbox can be made here ({reason}): {remedy(_PROFILE)}{_alternative()}"
            )
        self._works = True


def _alternative() -> str:
    if os.getuid() != 0:
        return ""
    return ", or use 'fimctl run --no-sandbox', with which nothing is kept from the program"


async def _refusal(*options: str) -> str:
    """Make a sandbox and leave it; return why that can't be done."""
    user = () if os.getuid() == 0 else ("--unshare-user",)
    command = [_PROGRAM, *user, "--bind", "/", "/", *options, "--", "true"]
    try:
        await run(command, seconds=_SECONDS)
    except UnsupportedError as error:
        raise UnsupportedError("bubblewrap (bwrap) is not installed: install it") from error
    except CommandError as error:
        return str(error)
    return ""
