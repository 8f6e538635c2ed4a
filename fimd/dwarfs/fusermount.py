"""Mounting by fusermount3, as a plain user does, without libfuse's own way of starting it.

libfuse 3.14 forks for it. In a Python process that means copying the page tables, and after that
each page that either one writes to; posix_spawn(3) copies nothing.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

_PROGRAM: Final = "fusermount3"
_MOUNTS: Final = "/etc/mtab"
"""Where fusermount3 looks up what it is to unmount for a plain user; minimal systems have none."""
_DESCRIPTOR_VARIABLE: Final = "_FUSE_COMMFD"
"""Names the socket on which fusermount3 sends the descriptor of the device."""


def mount(mount_point: str, options: Iterable[str]) -> int:
    """Mount, and return the descriptor by which the kernel is answered.

    Raises RuntimeError where mounting fails: fusermount3 has then said why on standard error.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            words = [_PROGRAM, "-o", ",".join(options), "--", mount_point]
            environment = {**os.environ, _DESCRIPTOR_VARIABLE: str(theirs.fileno())}
            try:
                pid = os.posix_spawnp(_PROGRAM, words, environment)
            except OSError as error:
                raise RuntimeError(f"{_PROGRAM} can't be started: {error.strerror}") from error
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        _, status = os.waitpid(pid, 0)
    if not descriptors:
        code = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"{_PROGRAM} could not mount {mount_point} (exit status {code})")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def unmount_command(mount_point: str) -> list[str]:
    """The command by which a user takes a FUSE mount out of the tree at once.

    umount(8), which asks the kernel whose the mount is, stands in where fusermount3 would refuse.
    """
    if os.access(_MOUNTS, os.R_OK):
        return [_PROGRAM, "-u", "-z", "-q", "--", mount_point]
    return ["umount", "--lazy", "--", mount_point]


def unmount(mount_point: str) -> None:
    """Unmount, unless somebody else has."""
    with suppress(OSError):
        words = unmount_command(mount_point)
        os.waitpid(os.posix_spawnp(words[0], words, os.environ), 0)
