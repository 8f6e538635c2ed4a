"""The daemon's own socket: made by systemd (fimd.socket), or else by the daemon."""

import os
import socket
import stat
from pathlib import Path
from typing import Final, Self

from fimd.base.errors import AccessDeniedError
from fimd.base.paths import RuntimeTree
from systemd import daemon as systemd_daemon  # type: ignore[attr-defined]

_BACKLOG: Final = 4096
"""Clients that may wait to be let in; the kernel takes its own limit where that is lower."""


class OwnSocket:
    """What to listen on, and whether it is still there."""

    def __init__(self, path: Path, sockets: list[socket.socket], made: tuple[int, int]) -> None:
        self.path = path
        self.sockets = sockets
        self._made = made

    @classmethod
    def open(cls, tree: RuntimeTree) -> Self:
        """Take systemd's, or make one. Raises AccessDeniedError where none can be made."""
        ready = given()
        path = tree.socket
        if any(_lies_at(one, path) for one in ready):
            return cls(path, ready, _identity(path))
        try:
            made = _listen(tree)
        except OSError as error:
            raise AccessDeniedError(f"{path} can't be made ({error.strerror})") from error
        return cls(path, [*ready, made], _identity(path))

    @property
    def is_replaced(self) -> bool:
        """Whether somebody else, as systemd at a login, listens in its place."""
        return _identity(self.path) not in {self._made, _NOTHING}

    def take_away(self) -> None:
        """Remove it, unless it is systemd's or has been replaced."""
        if not are_given() and _identity(self.path) == self._made:
            os.unlink(self.path)


def are_given() -> bool:
    """Tell whether systemd listens for this process."""
    return bool(_numbers())


def given() -> list[socket.socket]:
    """Return the sockets that systemd listens on for this process (sd_listen_fds(3))."""
    return [socket.socket(fileno=os.dup(one)) for one in _numbers()]


def _numbers() -> list[int]:
    return list(systemd_daemon.listen_fds(False))


_NOTHING: Final = (0, 0)


def _identity(path: Path) -> tuple[int, int]:
    try:
        facts = os.lstat(path)
    except OSError:
        return _NOTHING
    return facts.st_dev, facts.st_ino


def _lies_at(one: socket.socket, path: Path) -> bool:
    return one.family == socket.AF_UNIX and one.getsockname() == str(path)


def _listen(tree: RuntimeTree) -> socket.socket:
    """Listen at the tree's socket, in place of one that nobody listens on any more."""
    path = tree.socket
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        tree.set_aside(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        # by a short name: a socket's has 107 bytes at most (unix(7))
        new = f"/proc/self/fd/{directory}/{path.name}.{os.getpid()}"
        made.bind(new)
        made.listen(_BACKLOG)
        os.rename(new, path)
    except BaseException:
        made.close()
        raise
    finally:
        os.close(directory)
    return made
