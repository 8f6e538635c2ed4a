"""The session buses on which the daemon has its name: each that there is, while it is there."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from dbus_next.constants import MessageType
from dbus_next.message import Message

from fimd.base.errors import BusyError, FimError, UnsupportedError
from fimd.bus.callers import Caller, Callers, check_listener
from fimd.bus.connection import BusError, Connection, session_addresses
from fimd.bus.server import ObjectServer

log = structlog.get_logger(__name__)

_LOOK = 2.0
"""Seconds between two looks for a bus that has come."""


class _Bus:
    """A session bus, as a link of the object server."""

    def __init__(self, connection: Connection, server: ObjectServer) -> None:
        self.connection = connection
        self._server = server
        self._callers = Callers(connection)
        connection.add_message_handler(self._on_message)

    def _on_message(self, message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        self._server.take(self, message)
        return True

    async def caller(self, message: Message) -> Caller:
        return await self._callers.find(message.sender)

    def reply(self, message: Message) -> None:
        if self.connection.connected:
            self.connection.send(message)

    def signal(self, message: Message) -> None:
        if self.connection.connected:
            message.destination = None  # type: ignore[assignment]
            message.serial = self.connection.next_serial()
            self.connection.send(message)


class Buses:
    """All of them, by the identifier that each has."""

    def __init__(self, server: ObjectServer, name: str) -> None:
        self._server = server
        self._name = name
        self._names: list[str] = []
        self._buses: dict[str, _Bus] = {}
        self._known: dict[str, str] = {}  # the addresses at which they were found
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._refused: set[str] = set()
        self._had_one = False

    @property
    def are_lost(self) -> bool:
        """Whether there was one, and is none any more."""
        return self._had_one and not self._buses

    async def join(self, address: str, *, is_told: bool) -> None:
        """Take the daemon's names on a bus, until that ends; nothing where it has them there.

        `is_told` says that somebody who may has named the bus, rather than that it was found.
        Raises UnsupportedError where there is no bus, BusyError where another has the name there,
        AccessDeniedError where it could be a sandbox's.
        """
        async with self._turn:
            if address in self._known:
                return
            connection = await Connection.open(address)
            try:
                check_listener(connection.socket, may_be_gone=is_told)
                [identifier] = await connection.ask_bus("GetId", "")
                if identifier in self._buses:
                    connection.disconnect()
                    self._known[address] = identifier
                    return
                bus = _Bus(connection, self._server)
                for name in self._names:
                    await _own(connection, name)
                self._server.attach(bus)
                await connection.own(self._name)  # the last: who waits for it finds all
            except BaseException:
                connection.disconnect()
                raise
            self._buses[identifier] = bus
            self._known[address] = identifier
            self._had_one = True
        task = asyncio.create_task(self._see_out(identifier, bus), name=f"bus {address}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("on a bus", address=address, name=self._name)

    async def _see_out(self, identifier: str, bus: _Bus) -> None:
        await bus.connection.closed()
        self._server.detach(bus)
        del self._buses[identifier]
        self._known = {at: found for at, found in self._known.items() if found != identifier}

    async def follow(self) -> None:
        """Join what session buses come, for ever."""
        while True:
            await asyncio.sleep(_LOOK)
            await self.join_all(are_told=False)

    async def join_all(self, *, are_told: bool) -> None:
        """Join the session buses that are there; one that can't be joined is told once."""
        for address in session_addresses():
            try:
                await self.join(address, is_told=are_told)
            except UnsupportedError:
                self._refused.discard(address)
            except FimError as error:
                if address not in self._refused:
                    self._refused.add(address)
                    log.warning("not on a bus", address=address, reason=str(error))

    async def own(self, name: str) -> None:
        """Take a further name, on those that come too."""
        self._names.append(name)
        for bus in tuple(self._buses.values()):
            await _own(bus.connection, name)

    async def release(self, name: str) -> None:
        """Let go of a further name."""
        with suppress(ValueError):
            self._names.remove(name)
        for bus in tuple(self._buses.values()):
            try:
                await bus.connection.ask_bus("ReleaseName", "s", name)
            except BusError as error:
                log.warning("a launcher's name", name=name, reason=str(error))

    async def ask(self, message: Message, *, seconds: float = 10.0) -> Any:
        """Call a method of somebody else on a bus. Raises BusError, also where there is no bus."""
        for bus in tuple(self._buses.values()):
            return await bus.connection.ask(message, seconds=seconds)
        raise BusError(f"{message.member}: there is no session bus")

    async def close(self) -> None:
        """Leave all of them."""
        for bus in tuple(self._buses.values()):
            bus.connection.disconnect()
        await asyncio.gather(*self._tasks)


async def _own(connection: Connection, name: str) -> None:
    """Take a launcher's name, which is no reason to fail."""
    try:
        await connection.own(name)
    except (BusError, BusyError, TimeoutError) as error:
        log.warning("a launcher's name", name=name, reason=str(error))
