"""The daemon's own socket: made by systemd (fimd.socket), or else by the daemon."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fimd.base.errors import AccessDeniedError
from fimd.base.paths import RuntimeTree
from systemd import daemon as systemd_daemon  # type: ignore[attr-defined]

_BACKLOG: Final = 4096
"""Clients that may wait to be let in; the kernel takes its own limit where that is lower."""


def open_socket(tree: RuntimeTree) -> tuple[list[socket.socket], Callable[[], None]]:
    """Return what to listen on, and what takes it away when the daemon leaves.

    systemd's own stays. Raises AccessDeniedError where none can be made.
    """
    ready = given()
    path = tree.socket
    if any(_lies_at(one, path) for one in ready):
        return ready, lambda: None
    try:
        made = _listen(tree)
        facts = os.lstat(path)
    except OSError as error:
        raise AccessDeniedError(f"{path} can't be made ({error.strerror})") from error

    def take_away() -> None:
        """Remove it, unless another is there by now."""
        try:
            found = os.lstat(path)
        except OSError:
            return
        if (found.st_dev, found.st_ino) == (facts.st_dev, facts.st_ino):
            os.unlink(path)

    return [*ready, made], take_away


def given() -> list[socket.socket]:
    """Return the sockets that systemd listens on for this process (sd_listen_fds(3))."""
    return [socket.socket(fileno=number) for number in systemd_daemon.listen_fds(False)]


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
