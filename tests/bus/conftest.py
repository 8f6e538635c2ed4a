"""A private bus, and an object server of the tests' own on it."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from dbus_next.signature import Variant
from jeepney import DBusAddress, MatchRule, Message, MessageType, message_bus, new_method_call
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

from fimd.base.errors import NotFoundError
from fimd.bus.callers import Callers
from fimd.bus.connection import Connection
from fimd.bus.declare import Call, Interface, method, prop, signal
from fimd.bus.server import ObjectServer
from tests.support.session import wait_for_bus

# ruff: noqa: N802 - D-Bus members are named in its own style

ROOT = "/org/example"
NAME = "org.example.Service"

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Probe(Interface):
    """What a server can be asked for."""

    name = "org.example.Probe"

    def __init__(self) -> None:
        self.count = 0

    @prop("u")
    def Count(self) -> int:
        return self.count

    @prop("s", constant=True)
    def Kind(self) -> str:
        return "probe"

    @method("s text", "s text")
    async def Echo(self, _call: Call, text: str) -> list[object]:
        return [text]

    @method("s file")
    async def Refuse(self, _call: Call, file: str) -> None:
        raise NotFoundError(f"there is no {file}: look elsewhere")

    @method()
    async def Crash(self, _call: Call) -> None:
        raise ZeroDivisionError("a secret of the code")

    @method()
    async def Abandon(self, _call: Call) -> None:
        raise asyncio.CancelledError

    @method("", "u number")
    async def Lie(self, _call: Call) -> list[object]:
        return ["no number"]

    @method("h file", "b open")
    async def Look(self, _call: Call, file: int) -> list[object]:
        return [file >= 0]

    @method("a{sv} options", "as names")
    async def Names(self, _call: Call, options: dict[str, Variant]) -> list[object]:
        return [sorted(options)]

    @signal("u number, s text")
    def Said(self) -> None: ...


class Client:
    """A connection of somebody who calls the server, and hears its signals."""

    def __init__(self, connection: DBusConnection, service: str) -> None:
        self._connection = connection
        self._service = service
        self.signals: list[Message] = []

    async def listen(self) -> None:
        """Ask the bus for the server's signals."""
        rule = MatchRule(type="signal", sender=self._service)
        await self._send(message_bus_call("AddMatch", "s", (rule.serialise(),)))

    async def call(
        self,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        *,
        interface: str | None = Probe.name,
        path: str = ROOT,
    ) -> Any:
        """Call a method; return the reply's body, or the error's name and its text."""
        address = DBusAddress(path, bus_name=self._service, interface=interface)
        reply = await self._send(new_method_call(address, member, signature or None, body))
        if reply.header.message_type is MessageType.error:
            return reply.header.fields[4], reply.body[0]
        return reply.body

    async def _send(self, message: Message) -> Message:
        serial = next(self._connection.outgoing_serial)
        await self._connection.send(message, serial=serial)
        async with asyncio.timeout(20):
            while True:
                received = await self._connection.receive()
                if received.header.fields.get(5) == serial:
                    return received
                self._take(received)

    def _take(self, message: Message) -> None:
        if message.header.message_type is MessageType.signal and message.header.fields[7] != (
            "org.freedesktop.DBus"
        ):
            self.signals.append(message)

    async def hear(self, count: int) -> list[tuple[str, str, Any]]:
        """Wait until that many signals came; return path, member and body of each."""
        async with asyncio.timeout(20):
            while len(self.signals) < count:
                self._take(await self._connection.receive())
        return [(item.header.fields[1], item.header.fields[3], item.body) for item in self.signals]


def message_bus_call(member: str, signature: str, body: tuple[Any, ...]) -> Message:
    """Return a call of the bus itself."""
    return new_method_call(message_bus, member, signature, body)


@pytest.fixture
def bus(open_directory: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a bus that every user may connect to."""
    socket = open_directory / f"bus-{abs(hash(request.node.nodeid)):x}"
    config = socket.with_suffix(".conf")
    config.write_text(CONFIG.format(socket=socket))
    process = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork"])
    try:
        wait_for_bus(socket)
        socket.chmod(0o777)
        yield f"unix:path={socket}"
    finally:
        process.terminate()
        process.wait(60)
        config.unlink()


@pytest.fixture
async def server(bus: str) -> AsyncIterator[ObjectServer]:
    """An object server with a Probe at its root."""
    connection = await Connection.open(bus)
    callers = Callers(connection)
    server = ObjectServer(connection, ROOT, callers.admit)
    server.export(ROOT, Probe())
    await connection.own(NAME)
    yield server
    connection.disconnect()
    await connection.closed()


@pytest.fixture
async def client(bus: str, server: ObjectServer) -> AsyncIterator[Client]:
    """A client of the server."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await open_dbus_connection(bus))
        client = Client(connection, NAME)
        await client.listen()
        yield client
