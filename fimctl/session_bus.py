"""The session buses of this user, as far as this process knows: where they are, what they start."""

import os
from collections.abc import Iterator
from contextlib import closing

from fimctl.connection import Connection


def addresses() -> list[str]:
    """Return where session buses could be, the likeliest first."""
    given = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    path = os.path.join(runtime_directory(), "bus")
    usual = [f"unix:path={path}"] if os.path.exists(path) else []
    return list(dict.fromkeys([*([given] if given else []), *usual]))


def runtime_directory() -> str:
    """Return XDG_RUNTIME_DIR, or where logins have it."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def reload() -> Iterator[list[str]]:
    """Have each bus read the activation files anew; yield the names that it can start then."""
    for address in addresses():
        try:
            with closing(Connection.to_bus(address)) as bus:
                bus.call_bus("ReloadConfig")
                [names] = bus.call_bus("ListActivatableNames").body
        except (OSError, ValueError):  # it is not there, or no bus
            continue
        yield names
