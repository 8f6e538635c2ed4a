"""A trivial dbus-next service with given objects: bus_service.py NAME FILE.

FILE is a reply to GetManagedObjects; the interfaces have its properties, with fixed values.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import PropertyAccess
from dbus_next.service import ServiceInterface, dbus_property

from fimctl import wire


def interface(name: str, properties: dict[str, tuple[str, Any]]) -> ServiceInterface:
    """Make an interface with read-only properties, as a class of dbus-next is written."""
    members = {key: _property(key, *value) for key, value in properties.items()}
    kind = type("Bench", (ServiceInterface,), members)
    made: ServiceInterface = kind(name)
    return made


def _property(name: str, signature: str, value: Any) -> Any:
    own = _with_lists(value)

    def get(self: object) -> Any:
        return own

    get.__annotations__ = {"return": signature}
    get.__name__ = name
    return dbus_property(access=PropertyAccess.READ)(get)


def _with_lists(value: Any) -> Any:
    """Return a value with its structures as dbus-next has them."""
    return [_with_lists(item) for item in value] if isinstance(value, list | tuple) else value


async def main(name: str, objects: dict[str, Any]) -> None:
    """Serve until killed."""
    bus = await MessageBus().connect()
    for path, interfaces in objects.items():
        for kind, properties in interfaces.items():
            bus.export(path, interface(kind, properties))
    await bus.request_name(name)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    [given] = wire.parse(Path(sys.argv[2]).read_bytes()).body
    asyncio.run(main(sys.argv[1], given))
