"""Whether the daemon is going to answer, asked of the bus and of systemd when it takes long."""

from typing import Any, Final

from jeepney import DBusAddress, MessageType, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from fimctl.errors import ClientError

_BUS_NAME: Final = "org.flatimage.Fim1"
_UNIT: Final = "fimd.service"
_SECONDS: Final = 3.0
_SYSTEMD: Final = "org.freedesktop.systemd1"
_MANAGER: Final = DBusAddress("/org/freedesktop/systemd1", _SYSTEMD, f"{_SYSTEMD}.Manager")
_BUS: Final = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")


def check(address: str, *, start: bool) -> None:
    """Raise ClientError where nobody has the daemon's name and systemd has given up starting it.

    With `start` systemd is to start it once more first: a call that came while the start before
    was failing waits for a start that nobody has asked for.
    """
    with open_dbus_connection(address) as connection:
        if _ask(connection, _BUS, "NameHasOwner", "s", _BUS_NAME) in {None, True}:
            return
        path = _ask(connection, _MANAGER, "GetUnit", "s", _UNIT)
        if path is None:
            return  # not systemd starts it: the bus itself tells what came of it
        unit = DBusAddress(path, _SYSTEMD, "org.freedesktop.DBus.Properties")
        if _property(connection, unit, "Unit", "ActiveState") not in {"failed", "inactive"}:
            return
        if start and _ask(connection, _MANAGER, "StartUnit", "ss", _UNIT, "replace") is not None:
            return
        result = _property(connection, unit, "Service", "Result")
        raise ClientError(
            f"systemd could not start fimd ({result}): 'systemctl --user status {_UNIT}' and "
            f"'fimctl logs' tell more"
        )


def _property(connection: DBusConnection, unit: DBusAddress, interface: str, name: str) -> Any:
    value = _ask(connection, unit, "Get", "ss", f"{_SYSTEMD}.{interface}", name)
    return None if value is None else value[1]


def _ask(
    connection: DBusConnection, where: DBusAddress, member: str, signature: str, *body: str
) -> Any:
    """Return the first out-argument, None for an error or no reply in time."""
    call = new_method_call(where, member, signature, body)
    try:
        reply = connection.send_and_get_reply(call, timeout=_SECONDS)
    except TimeoutError:
        return None
    return None if reply.header.message_type is MessageType.error else reply.body[0]
