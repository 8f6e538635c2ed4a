"""Sandboxes that are being made, which what is mounted must not vanish under.

Bubblewrap binds /tmp with all that is mounted below it, and then sets the flags of each of these
mounts anew. It fails where one of them is gone by then, whoever's it was.
"""

import asyncio
import os
from typing import Final

_LONGEST: Final = 2.0
"""Seconds that a sandbox may take before nothing waits for it any more."""
_PAUSE: Final = 0.01
_BUBBLEWRAP: Final = "bwrap"
_DEEPEST: Final = 4
"""Bubblewrap, its child, and in a PID namespace that one's child, which is the program."""


class SettingUp:
    """The processes that were given a launch plan and have yet to make their sandbox of it."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def begin(self, pid: int) -> None:
        """Take note that a process is about to become bubblewrap."""
        self._forget()
        self._until[pid] = asyncio.get_running_loop().time() + _LONGEST

    async def over(self) -> None:
        """Wait until none is being made, a bounded time."""
        while self._until:
            self._forget()
            for pid in list(self._until):
                if _is_made(pid):
                    self._until.pop(pid, None)
            if self._until:
                await asyncio.sleep(_PAUSE)

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        self._until = {pid: until for pid, until in self._until.items() if now < until}


def _is_made(pid: int) -> bool:
    """Tell whether a process has a program in its sandbox, or is gone.

    Bubblewrap forks, and its child makes the sandbox before it executes anything else.
    """
    try:
        if _name(pid) != _BUBBLEWRAP:
            return False
        for _ in range(_DEEPEST):
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = file.read().split()
            if not children:
                return False
            pid = int(children[0])
            if _name(pid) != _BUBBLEWRAP:
                return True
    except (FileNotFoundError, ProcessLookupError):
        return not os.path.exists(f"/proc/{pid}")
    return False


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", errors="replace") as file:
        return file.read().rstrip("\n")
