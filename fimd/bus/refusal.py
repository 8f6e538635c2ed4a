"""Telling callers why the daemon can't start, where the bus started it for them.

Who called would learn no more than that a process exited, and nothing at all where systemd was to
start it: dbus-daemon then waits for the name until its patience ends. So the daemon takes its names
for a moment, those of launchers too, answers what was called with the error, and leaves; the next
call starts it anew.
"""

import asyncio
from contextlib import suppress
from typing import Final

from dbus_next.constants import MessageType
from dbus_next.message import Message

from fimd.base.errors import FimError
from fimd.bus.connection import Connection, session_address
from fimd.bus.options import plain_text
from fimd.bus.paths import BUS_NAME, launcher_name
from fimd.bus.server import ERROR_PREFIX
from fimd.images.catalogue import read_entries, state_directory

_PATIENCE: Final = 3.0
"""Seconds in which the call that started the daemon has to arrive, and all that follow it."""
_NEXT_CALL: Final = 0.3
"""Seconds that a client may take to its next call: many ask what there is before they call it."""


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
        with suppress(TimeoutError):  # whoever called has gone, or has had its answers
            async with asyncio.timeout(_PATIENCE):
                await called.wait()
                while called.is_set():
                    called.clear()
                    await asyncio.sleep(_NEXT_CALL)
        for name in names:  # what came before this is answered
            await connection.ask_bus("ReleaseName", "s", name)
    finally:
        connection.disconnect()
