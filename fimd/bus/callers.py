"""Who calls: a process, as a pidfd tells it from all others, and its user.

A process in a sandbox, ours or another's, may reach the bus, and is the same user: it is told apart
by its namespaces. It may learn what the daemon is, and nothing more.
"""

import os
import select
import socket
import struct
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import AccessDeniedError, FimError, ProcessGoneError
from fimd.base.namespaces import is_confined
from fimd.bus.connection import BusError, Connection
from fimd.mounts.process import start_time

_REMEMBERED: Final = 64
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Caller:
    """A process that asks for something."""

    pid: int
    uid: int
    started: int
    """Clock ticks since boot: with the PID a name for good."""
    confined: bool
    """Whether it is in a sandbox."""


class Callers:
    """Remembers the latest callers; a bus gives a unique name only once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: OrderedDict[str, Caller] = OrderedDict()

    async def find(self, sender: str) -> Caller:
        """Return who a unique name is. Raises AccessDeniedError where that can't be told."""
        caller = self._known.get(sender)
        if caller is None:
            caller = self._known[sender] = await self._ask(sender)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if not lives(caller):
            raise AccessDeniedError(f"{sender} can't be identified: its process has ended")
        return caller

    async def _ask(self, sender: str) -> Caller:
        """Return who a name is."""
        asked = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            [facts], files = await self._connection.ask_bus_for_files(
                "GetConnectionCredentials", "s", sender
            )
        except BusError as error:
            raise AccessDeniedError(f"{sender} can't be identified: {error}") from error
        pid, uid = facts["ProcessID"].value, facts["UnixUserID"].value
        given = facts.get("ProcessFD")
        pidfd = os.dup(files[given.value]) if given is not None else -1
        for file in files:
            os.close(file)
        try:
            if pidfd < 0:
                pidfd = os.pidfd_open(pid)
            caller = identify(pid, uid, pidfd)
            # The bus knows a number, which may have become another process's meanwhile.
            if given is None and caller.started / _CLOCK_TICKS > asked:
                raise ProcessGoneError(f"process {pid} has ended")
        except (OSError, FimError) as error:
            raise AccessDeniedError(f"{sender} can't be identified: {error}") from error
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        return caller


def own_process(pid: int) -> Caller:
    """Return a process of this user that is in no sandbox.

    Raises ProcessGoneError or AccessDeniedError.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError):  # there is none, or the number is a thread's, or nobody's
        raise ProcessGoneError(f"there is no process {pid}") from None
    try:
        caller = identify(pid, os.stat(f"/proc/{pid}").st_uid, pidfd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGoneError(f"there is no process {pid}") from None
    finally:
        os.close(pidfd)
    if caller.uid != os.getuid():
        raise AccessDeniedError(f"process {pid} belongs to user {caller.uid}")
    refuse_confined(caller)
    return caller


def refuse_confined(caller: Caller) -> None:
    """Raise AccessDeniedError for a process in a sandbox."""
    if caller.confined:
        raise AccessDeniedError(
            f"process {caller.pid} is in a sandbox or a container (it has users, processes or a "
            "root of its own), where fimd takes no orders from: do this outside of it"
        )


def check_listener(connected: socket.socket, *, may_be_gone: bool) -> None:
    """Raise AccessDeniedError where a sandbox could be at the other end of a socket.

    Who is a bus says who calls by it: a program inside that made one up would be whom it likes. The
    kernel knows who began to listen, which `dbus-daemon --fork` leaves to its child.
    """
    facts = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("iII", facts)
    if uid not in {os.getuid(), 0}:
        raise AccessDeniedError(f"user {uid} listens there")
    try:
        confined = pid > 0 and is_confined(pid)
    except (FileNotFoundError, ProcessLookupError):
        if not may_be_gone:
            raise AccessDeniedError("who listens there can't be told: its process has ended") from (
                None
            )
        return
    if confined:
        raise AccessDeniedError(f"process {pid}, which listens there, is in a sandbox")


def identify(pid: int, uid: int, pidfd: int) -> Caller:
    """Return what a process is. Raises ProcessGoneError or OSError where it has ended."""
    caller = Caller(pid, uid, start_time(pid), is_confined(pid))
    if _has_ended(pidfd):
        raise ProcessGoneError(f"process {pid} has ended")
    return caller


def lives(caller: Caller) -> bool:
    """Tell whether a caller's process is still there."""
    try:
        return start_time(caller.pid) == caller.started
    except ProcessGoneError:
        return False


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
