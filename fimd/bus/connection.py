"""A dbus-next connection without the faults that would end or stall a daemon."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self, cast

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType, NameFlag, RequestNameReply
from dbus_next.message import Message

from fimd.base.errors import BusyError, FimError, UnsupportedError

log = logging.getLogger(__name__)


class BusError(FimError):
    """The message bus answered a call of ours with an error, or not at all."""

    name = "BusFailed"


class _PatientSocket:
    """Writes nothing where the socket is full; the library's writer takes EAGAIN for the end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0  # the writer waits until the socket can be written


class Connection(MessageBus):
    """A connection to the session bus. Incoming file descriptors are accepted and closed."""

    def __init__(self, address: str) -> None:
        super().__init__(bus_address=address, negotiate_unix_fd=True)
        self._kept: dict[int, list[int]] = {}
        self._writer.sock = _PatientSocket(self._sock)

    @classmethod
    async def open(cls, address: str, *, seconds: float = 10.0) -> Self:
        """Connect and authenticate. Raises UnsupportedError where there is no bus."""
        try:
            async with asyncio.timeout(seconds):
                return cast("Self", await cls(address).connect())
        except Exception as error:
            raise UnsupportedError(
                f"the session bus at {address} can't be used ({error}): log in with a session, "
                f"or start a shell by dbus-run-session"
            ) from error

    async def _auth_readline(self) -> str:
        """Read a line; the library's own loop spins for ever where the bus hangs up."""
        line = b""
        while not line.endswith(b"\r\n"):
            data = await self._loop.sock_recv(self._sock, 1)
            if not data or len(line) > 4096:
                raise ConnectionError("the bus hung up during authentication")
            line += data
        return line[:-2].decode()

    def _on_message(self, msg: Message) -> None:
        try:
            super()._on_message(msg)  # type: ignore[no-untyped-call]
        finally:
            kept = self._kept.get(msg.reply_serial)
            for descriptor in msg.unix_fds:
                if kept is not None:
                    kept.append(descriptor)
                else:
                    with suppress(OSError):
                        os.close(descriptor)

    @property
    def socket(self) -> socket.socket:
        """What it is connected by."""
        connected: socket.socket = self._sock
        return connected

    def disconnect(self) -> None:
        """End the connection, unless it has ended."""
        if self.connected:
            super().disconnect()  # type: ignore[no-untyped-call]

    def _finalize(self, err: Exception | None = None) -> None:
        super()._finalize(err)  # type: ignore[no-untyped-call]
        self._stream.close()  # the library leaves both to the garbage collector
        self._sock.close()

    async def closed(self) -> None:
        """Wait until the connection has ended."""
        try:
            await self._disconnect_future
        except Exception as error:  # noqa: BLE001 - whatever ended it, it has ended
            log.info("the bus is gone: %s", str(error) or "it hung up")

    async def ask(self, message: Message, *, seconds: float = 10.0) -> Any:
        """Call a method and return the reply's body. Raises BusError."""
        try:
            async with asyncio.timeout(seconds):
                reply = await self.call(message)
        except TimeoutError:
            raise BusError(f"{message.member} was not answered within {seconds:g} s") from None
        if reply is None or reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply and reply.body else "no reply"
            raise BusError(f"{message.member}: {text}")
        return reply.body

    async def ask_bus(self, member: str, signature: str, *body: Any) -> Any:
        """Call a method of the bus itself."""
        return await self.ask(_to_bus(member, signature, *body))

    async def ask_bus_for_files(
        self, member: str, signature: str, *body: Any
    ) -> tuple[Any, list[int]]:
        """Call a method of the bus; return the reply's body and its files, the caller's to close.

        Raises BusError.
        """
        message = _to_bus(member, signature, *body)
        message.serial = self.next_serial()
        files = self._kept[message.serial] = []
        try:
            return await self.ask(message), files
        except BaseException:
            for descriptor in files:
                os.close(descriptor)
            raise
        finally:
            del self._kept[message.serial]

    async def own(self, name: str) -> None:
        """Take the bus name. Raises BusyError where somebody else has it."""
        reply = await asyncio.wait_for(self.request_name(name, NameFlag.DO_NOT_QUEUE), 10.0)
        if reply not in {RequestNameReply.PRIMARY_OWNER, RequestNameReply.ALREADY_OWNER}:
            raise BusyError(f"another fimd owns {name} on this bus: there can be only one")


def _to_bus(member: str, signature: str, *body: Any) -> Message:
    return Message(
        destination="org.freedesktop.DBus",
        path="/org/freedesktop/DBus",
        interface="org.freedesktop.DBus",
        member=member,
        signature=signature,
        body=list(body),
    )


def session_addresses(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return where session buses of this user could be, the likeliest first."""
    given = environment.get("DBUS_SESSION_BUS_ADDRESS")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    path = os.path.join(runtime, "bus")
    usual = [f"unix:path={path}"] if os.path.exists(path) else []
    return list(dict.fromkeys([given, *usual] if given else usual))


def session_address() -> str:
    """Return the session bus's address. Raises UnsupportedError where there is none."""
    for address in session_addresses():
        return address
    raise UnsupportedError(
        "there is no session bus (DBUS_SESSION_BUS_ADDRESS is not set): log in with a session, "
        "or start a shell by dbus-run-session"
    )
