"""Telling callers why the daemon can't start, where the bus started it for them.

Who called would learn no more than that a process exited, and nothing at all where systemd was to
start it: dbus-daemon then waits for the name until its patience ends. So the daemon takes its names
for a moment, those of launchers too, answers what was called with the error, and leaves; the next
call starts it anew.
"""

import asyncio
from typing import Final

from dbus_next.constants import MessageType
from dbus_next.message import Message

from fimd.bus.connection import Connection, session_address
from fimd.bus.options import plain_text
from fimd.bus.paths import BUS_NAME, launcher_name
from fimd.bus.server import ERROR_PREFIX
from fimd.errors import FimError
from fimd.instances.catalogue import read_entries, state_directory

_FIRST_CALL: Final = 3.0
"""Seconds that the call which started the daemon may take to arrive."""


async def refuse(error: FimError) -> None:
    """Answer the waiting call, and what arrives with it, with an error. Raises FimError."""
    connection = await Connection.open(session_address())
    called = asyncio.Event()
    text = plain_text(str(error))
    images = await asyncio.to_thread(read_entries, state_directory())
    names = [BUS_NAME, *(launcher_name(image.id) for image in images if image.registered)]

    def answer(message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        connection.send(Message.new_error(message, ERROR_PREFIX + error.name, text))
        called.set()
        return True

    connection.add_message_handler(answer)
    try:
        for name in names:
            await connection.own(name)
        async with asyncio.timeout(_FIRST_CALL):
            await called.wait()
        for name in names:  # what came before this is answered
            await connection.ask_bus("ReleaseName", "s", name)
    except TimeoutError:
        pass  # whoever called has gone
    finally:
        connection.disconnect()
