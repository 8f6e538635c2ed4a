"""A second daemon, which another session bus has started: the first one serves that bus too."""

from dbus_next.message import Message

from fimd.base.places import find_global, socket_path
from fimd.bus.connection import Connection, session_address
from fimd.bus.paths import ROOT


async def hand_over() -> None:
    """Have the daemon that is there take its names on this session's bus. Raises FimError."""
    address = session_address()
    connection = await Connection.open(f"unix:path={socket_path(find_global())}")
    try:
        message = Message(
            path=ROOT,
            interface="org.flatimage.Fim1.Manager",
            member="JoinBus",
            signature="sa{sv}",
            body=[address, {}],
        )
        await connection.ask(message)
    finally:
        connection.disconnect()
