"""The daemon's own socket: D-Bus from peer to peer, which needs no bus.

The kernel tells who has connected. Whoever that is can do no more harm than to be hung up on: what
it sends is bounded in size, number and time, and so is what it does not read.
"""

import asyncio
import os
import secrets
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import structlog
from dbus_next.constants import MessageType
from dbus_next.message import Message

from fimd.base.errors import AccessDeniedError, FimError
from fimd.bus import driver
from fimd.bus.callers import Caller, identify
from fimd.bus.handshake import HandshakeError, greet
from fimd.bus.options import plain_text
from fimd.bus.reading import FIXED, MessageError, measure, parse
from fimd.bus.server import Link

log = structlog.get_logger(__name__)

_MOST: Final = 1000
"""Connections at once."""
_MOST_OF_ONE: Final = 64
"""Connections of one process."""
_GREETING: Final = 10.0
"""Seconds that the authentication may take."""
_SENDING: Final = 30.0
"""Seconds from a message's first byte to its last, and that a reply may wait to be read."""
_LARGEST: Final = 16 << 20
"""Bytes of a message: words and variables of a program take 6 MiB at most (execve(2))."""
_LARGEST_CONFINED: Final = 64 << 10
"""Bytes of a message from a sandbox, whose calls are refused."""
_LARGE: Final = 256 << 10
_LARGE_AT_ONCE: Final = 4
"""Messages of more than `_LARGE` bytes that are received at the same time, of all peers."""
_CALLS: Final = 16
"""Calls of one peer that are answered at the same time."""
_UNREAD: Final = 4 << 20
"""Bytes that may wait for a peer to read them when there is more to send."""
_QUIET: Final = 5.0
"""Seconds between two log messages about peers that were hung up on."""
_SO_PEERPIDFD: Final = 77
_KEEP: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Later asyncio would remove the file of a socket that is systemd's."""
_LIMITS: Final = "org.freedesktop.DBus.Error.LimitsExceeded"
_NONSENSE: Final = "org.freedesktop.DBus.Error.InconsistentMessage"


class Answers(Protocol):
    """What answers calls, and sends signals: an ObjectServer."""

    def attach(self, link: Link) -> None:
        """Send signals by a link from now on."""

    def detach(self, link: Link) -> None:
        """Send nothing more by a link."""

    def take(self, link: Link, message: Message) -> asyncio.Task[None]:
        """Answer a call that came by a link."""
        ...


class Peers:
    """Everybody who is connected."""

    def __init__(self, server: Answers) -> None:
        self.server = server
        self.guid = secrets.token_hex(16)
        self.large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._listening: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._of_process: Counter[int] = Counter()
        self._told = -_QUIET
        self._expected: set[asyncio.Task[None]] = set()

    @property
    def are_expected(self) -> bool:
        """Whether somebody has connected and is yet to call."""
        return bool(self._expected)

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve who connects to these."""
        for listening in sockets:
            server = await asyncio.start_unix_server(self._welcome, sock=listening, **_KEEP)
            self._listening.append(server)

    def stop_listening(self) -> None:
        """Let nobody in any more. Who is connected stays."""
        for server in self._listening:
            server.close()

    async def close(self) -> None:
        """Hang up on everybody."""
        self.stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._expected.add(task)
        pid = pidfd = 0
        try:
            sock = writer.get_extra_info("socket")
            pid, uid, pidfd = _who(sock)
            self._of_process[pid] += 1
            if uid != os.getuid():
                raise HandshakeError("this daemon is another user's")
            if len(self._tasks) > _MOST or self._of_process[pid] > _MOST_OF_ONE:
                raise HandshakeError("too many connections: close some")
            async with asyncio.timeout(_GREETING):
                await greet(reader, writer, self.guid)
            on_call = partial(self._expected.discard, task)
            await Peer(self, pid, uid, pidfd, reader, writer).serve(on_call)
        except HandshakeError as error:
            self.tell(pid, str(error))
            writer.write(f"ERROR {error}\r\n".encode())
        except TimeoutError:
            self.tell(pid, "it was silent")
        except (EOFError, OSError, asyncio.LimitOverrunError):
            pass  # it has gone, or was nobody to talk to
        except asyncio.CancelledError:
            pass  # the daemon leaves
        finally:
            self._tasks.discard(task)
            self._expected.discard(task)
            self._of_process[pid] -= 1
            self._of_process += Counter()  # without those that have none
            if pidfd:
                os.close(pidfd)
            writer.close()

    def tell(self, pid: int, reason: str) -> None:
        """Log that somebody was hung up on, unless that was told a moment ago."""
        now = time.monotonic()
        if now - self._told >= _QUIET:
            self._told = now
            log.warning("hung up on a client", client=pid, reason=reason)


class Peer:
    """One who has connected and is this user, as a link of the object server."""

    def __init__(
        self,
        peers: Peers,
        pid: int,
        uid: int,
        pidfd: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._peers = peers
        self._pid, self._uid, self._pidfd = pid, uid, pidfd
        self._reader, self._writer = reader, writer
        self._serial = 0
        self._calls = asyncio.Semaphore(_CALLS)
        self._is_named = False
        """Whether it has said Hello, and so expects senders and destinations."""
        self._is_trusted = False
        self._hears = False
        """Whether it gets signals: from the end of its first call on, if it may call at all."""

    async def serve(self, on_call: Callable[[], object]) -> None:
        """Answer calls until it hangs up, or has to be hung up on. `on_call` is told of each."""
        self._peers.server.attach(self)
        try:
            while (message := await self._receive()) is not None:
                if message.message_type is MessageType.METHOD_CALL:
                    await self._take(message)
                    on_call()
                async with asyncio.timeout(_SENDING):
                    await self._writer.drain()
        finally:
            self._peers.server.detach(self)

    async def _take(self, message: Message) -> None:
        if message.destination == driver.NAME or message.path == driver.PATH:
            await self.caller(message)
            self._is_named = self._is_named or message.member == "Hello"
            self.reply(driver.answer(message, self._peers.guid))
            return
        await self._calls.acquire()
        task = self._peers.server.take(self, message)
        task.add_done_callback(lambda _: self._calls.release())

    async def _receive(self) -> Message | None:
        """Return the next message; None where there is none, or it was nothing to go on after."""
        reader = self._reader
        try:
            start = await reader.readexactly(1)
        except EOFError:
            return None
        serial, size = 0, FIXED
        try:
            async with asyncio.timeout(_SENDING):
                start += await reader.readexactly(FIXED - 1)
                size, serial = measure(start)
                if size > (_LARGEST if self._may_call() else _LARGEST_CONFINED):
                    self._hang_up(serial, _LIMITS, f"a message of {size} bytes is too large")
                    return None
                if size <= _LARGE:
                    data = start + await reader.readexactly(size - FIXED)
                else:
                    async with self._peers.large:
                        data = start + await reader.readexactly(size - FIXED)
            return await parse(data)
        except MessageError as error:
            self._hang_up(serial, _NONSENSE, f"this is no message: {error}")
        except TimeoutError:
            self._hang_up(serial, _LIMITS, f"no end of a message came within {_SENDING:g} s")
        return None

    def _hang_up(self, serial: int, name: str, text: str) -> None:
        """Tell both sides why this is the end."""
        self._peers.tell(self._pid, text)
        if serial:
            body = [plain_text(text)]
            error = Message(
                message_type=MessageType.ERROR,
                error_name=name,
                reply_serial=serial,
                signature="s",
                body=body,
            )
            self._send(error)

    def _may_call(self) -> bool:
        try:
            caller = self._identify()
        except AccessDeniedError:
            return False
        return not caller.confined

    def _identify(self) -> Caller:
        try:
            return identify(self._pid, self._uid, self._pidfd)
        except (OSError, FimError) as error:
            raise AccessDeniedError(
                f"the process that has connected can't be identified: {error}"
            ) from error

    async def caller(self, _message: Message) -> Caller:
        """Return what the process is now: it may have gone into a sandbox meanwhile."""
        caller = self._identify()
        self._is_trusted = not caller.confined
        return caller

    def reply(self, message: Message) -> None:
        """Send a reply. Who has one, and was not refused, hears signals."""
        self._send(message)
        self._hears = self._is_trusted

    def signal(self, message: Message) -> None:
        """Send a signal to a peer that hears them."""
        if self._hears:
            self._send(message)

    def _send(self, message: Message) -> None:
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > _UNREAD:
            self._peers.tell(self._pid, "it does not read what it is sent")
            transport.abort()
            return
        self._serial += 1
        message.serial = self._serial
        message.destination = driver.PEER if self._is_named else None  # type: ignore[assignment]
        data = message._marshall()  # type: ignore[no-untyped-call]  # noqa: SLF001 - as its writer
        self._writer.write(_from_daemon(data) if self._is_named else data)


def _from_daemon(data: bytes) -> bytes:
    """Return a message with its sender, which the library leaves to the bus."""
    length = int.from_bytes(data[12:FIXED], "little")
    end = FIXED + length + -length % 8
    name = driver.DAEMON.encode()
    field = b"\7\1s\0%b%b\0" % (len(name).to_bytes(4, "little"), name)
    fields = data[FIXED:end] + field
    return b"%b%b%b%b%b" % (
        *(data[:12], len(fields).to_bytes(4, "little"), fields),
        *(bytes(-len(fields) % 8), data[end:]),
    )


def _who(sock: socket.socket) -> tuple[int, int, int]:
    """Return process, user and pidfd of who has connected. Raises OSError where it is gone.

    Before Linux 6.5 the kernel gives a number alone, which is looked up at once.
    """
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        pidfd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        if pid <= 0:
            raise
        pidfd = os.pidfd_open(pid)
    return pid, uid, pidfd
