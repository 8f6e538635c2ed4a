"""Functions run in forks of the test, and as another user where the test is root."""

import ctypes
import os
import pwd
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.account import PLAIN_ACCOUNT

_PR_SET_DUMPABLE = 4


def in_child(function: Callable[[], object], *, as_plain: bool = False) -> int:
    """Run a function in a fork; return its exit status, or minus the signal that killed it.

    The status is 0 where it returned, 1 where it raised, with a traceback on standard error.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if as_plain and os.getuid() == 0:
                become_plain()
            function()
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the parent is told
            traceback.print_exc()
        finally:
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(waited)


def become_plain() -> None:
    """Become a plain user for good."""
    entry = pwd.getpwnam(PLAIN_ACCOUNT)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    # as a program that the user has started: the kernel lets it write to its own /proc
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


@contextmanager
def beside(function: Callable[[], Any]) -> Iterator[int]:
    """Run a function again and again in a fork, until the end of the block; give its PID."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                function()
        except BaseException:  # noqa: BLE001 - whatever it is, the parent is told
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
