"""Telling callers why the daemon can't start, where a bus or systemd started it for them.

Who called would learn no more than that a process exited, and nothing at all where systemd was to
start it: dbus-daemon then waits for the name until its patience ends. So the daemon takes its names
for a moment, those of launchers too, listens on the sockets that systemd gave it, answers what was
called with the error, and leaves; the next call starts it anew.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from dbus_next.constants import MessageType
from dbus_next.message import Message

from fimd.base.errors import FimError
from fimd.bus.connection import Connection, session_address
from fimd.bus.options import plain_text
from fimd.bus.paths import BUS_NAME, launcher_name
from fimd.bus.peers import Peers
from fimd.bus.server import ERROR_PREFIX, Link
from fimd.images.catalogue import read_entries, state_directory

_PATIENCE: Final = 3.0
"""Seconds in which the call that started the daemon has to arrive, and all that follow it."""
_NEXT_CALL: Final = 0.3
"""Seconds that a client may take to its next call: many ask what there is before they call it."""


async def refuse(error: FimError, sockets: Sequence[socket.socket]) -> None:
    """Answer the waiting call, and what arrives with it, with an error."""
    refusal = _Refusal(error)
    peers = Peers(refusal)
    await peers.listen(sockets)
    try:
        with suppress(FimError):  # the bus itself may be what is missing
            await _refuse_on_bus(refusal)
            return
        await refusal.told()
    finally:
        await peers.close()


async def _refuse_on_bus(refusal: "_Refusal") -> None:
    """Wait with the daemon's names on the session bus. Raises FimError."""
    connection = await Connection.open(session_address())
    images = await asyncio.to_thread(read_entries, state_directory())
    names = [BUS_NAME, *(launcher_name(image.id) for image in images if image.registered)]

    def answer(message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        connection.send(refusal.of(message))
        return True

    connection.add_message_handler(answer)
    try:
        for name in names:
            await connection.own(name)
        await refusal.told()
        for name in names:  # what came before this is answered
            await connection.ask_bus("ReleaseName", "s", name)
    finally:
        connection.disconnect()


class _Refusal:
    """Answers every call with an error, in the place of an ObjectServer."""

    def __init__(self, error: FimError) -> None:
        self._name = ERROR_PREFIX + error.name
        self._text = plain_text(str(error))
        self._called = asyncio.Event()

    async def told(self) -> None:
        """Wait until who called has had its answers, or has gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._called.wait()
                while self._called.is_set():
                    self._called.clear()
                    await asyncio.sleep(_NEXT_CALL)

    def of(self, message: Message) -> Message:
        """Return the answer to a call."""
        self._called.set()
        return Message.new_error(message, self._name, self._text)

    def attach(self, link: Link) -> None:
        """There are no signals."""

    def detach(self, link: Link) -> None:
        """There are no signals."""

    def take(self, link: Link, message: Message) -> asyncio.Task[None]:
        """Answer a call that came by a socket."""
        link.reply(self.of(message))
        return asyncio.create_task(asyncio.sleep(0))
