"""A terminal, and what a user types and sees there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

Process = subprocess.Popen[bytes]


@dataclass
class Terminal:
    """A pseudo-terminal in which one command runs as in a user's window."""

    owner: int = -1
    """The user whose terminal it is, -1 for this one."""
    _seen: str = field(default="", init=False)

    def __enter__(self) -> Self:
        self._leader, self._follower = pty.openpty()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._leader)
        os.close(self._follower)

    def start(self, start: Callable[..., Process], *argv: Any, **options: Any) -> Process:
        """Start a command whose controlling terminal this is. `start` is as Session's."""
        os.fchown(self._follower, self.owner, -1)
        end = self._follower
        command = ("setsid", "--ctty", "--wait", *argv)
        return start(*command, stdin=end, stdout=end, stderr=end, **options)

    def resize(self, rows: int, columns: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._leader, text.encode())

    def wait_for(self, pattern: str, seconds: float = 15) -> "re.Match[str]":
        """Wait until something is seen, and forget all up to its end."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.rest())):
            assert time.monotonic() < deadline, f"{pattern} was not seen in {self._seen!r}"
            time.sleep(0.02)
        self._seen = self._seen[match.end() :]
        return match

    def rest(self) -> str:
        """Return what was seen since."""
        os.set_blocking(self._leader, False)
        with suppress(BlockingIOError):
            while data := os.read(self._leader, 4096):
                self._seen += data.decode(errors="replace")
        return self._seen

    def settle(self, seconds: float = 0.4) -> None:
        """Wait until nothing more appears."""
        deadline = time.monotonic() + 15
        seen, since = self.rest(), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() < deadline:
            time.sleep(0.02)
            if self.rest() != seen:
                seen, since = self.rest(), time.monotonic()
