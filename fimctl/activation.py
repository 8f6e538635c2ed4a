"""Whether the daemon is going to answer, asked of the bus and of systemd when it takes long."""

from contextlib import closing
from typing import Any, Final

from fimctl import wire
from fimctl.connection import Connection
from fimctl.errors import ClientError

_BUS_NAME: Final = "org.flatimage.Fim1"
_UNIT: Final = "fimd.service"
_SECONDS: Final = 3.0
_SYSTEMD: Final = "org.freedesktop.systemd1"


def check(address: str, *, start: bool) -> None:
    """Raise ClientError where nobody has the daemon's name and systemd has given up starting it.

    With `start` systemd is to start it once more first: a call that came while the start before
    was failing waits for a start that nobody has asked for.
    """
    with closing(Connection.to_bus(address)) as connection:
        owned = _first(connection.call_bus("NameHasOwner", "s", (_BUS_NAME,)))
        if owned in {None, True}:
            return
        path = _manager(connection, "GetUnit", "s", _UNIT)
        if path is None:
            return  # not systemd starts it: the bus itself tells what came of it
        if _property(connection, path, "Unit", "ActiveState") not in {"failed", "inactive"}:
            return
        if start and _manager(connection, "StartUnit", "ss", _UNIT, "replace") is not None:
            return
        result = _property(connection, path, "Service", "Result")
        raise ClientError(
            f"systemd could not start fimd ({result}): 'systemctl --user status {_UNIT}' and "
            f"'fimctl logs' tell more"
        )


def _manager(connection: Connection, member: str, signature: str, *body: str) -> Any:
    path, interface = "/org/freedesktop/systemd1", f"{_SYSTEMD}.Manager"
    return _ask(connection, path, interface, member, signature, *body)


def _property(connection: Connection, unit: str, interface: str, name: str) -> Any:
    properties = "org.freedesktop.DBus.Properties"
    value = _ask(connection, unit, properties, "Get", "ss", f"{_SYSTEMD}.{interface}", name)
    return None if value is None else value[1]


def _ask(
    connection: Connection, path: str, interface: str, member: str, signature: str, *body: str
) -> Any:
    """Return the first out-argument, None for an error or no reply in time."""
    try:
        reply = connection.call(
            _SYSTEMD, path, interface, member, signature, body, seconds=_SECONDS
        )
    except TimeoutError:
        return None
    return _first(reply)


def _first(reply: wire.Message) -> Any:
    return None if reply.kind == wire.ERROR else reply.body[0]
