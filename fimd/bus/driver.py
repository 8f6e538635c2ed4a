"""What a peer that takes the daemon's own socket for a bus asks of that bus.

Clients of many libraries know no other way: they say Hello, ask for signals, and look who has the
name. There are two on such a bus, the daemon and the peer itself.
"""

from collections.abc import Callable
from typing import Any, Final

from dbus_next.message import Message

from fimd.bus.paths import BUS_NAME

NAME: Final = "org.freedesktop.DBus"
PATH: Final = "/org/freedesktop/DBus"
DAEMON: Final = ":1.0"
"""The daemon's unique name."""
PEER: Final = ":1.1"

_ERROR: Final = f"{NAME}.Error."
_OWNERS: Final = {NAME: NAME, BUS_NAME: DAEMON, DAEMON: DAEMON, PEER: PEER}


def answer(message: Message, guid: str) -> Message:
    """Answer a call of the bus itself."""
    members: dict[str | None, tuple[str, str, Callable[..., Any]]] = {
        "Hello": ("", "s", lambda: PEER),
        "AddMatch": ("s", "", lambda _rule: None),
        "RemoveMatch": ("s", "", lambda _rule: None),
        "BecomeMonitor": ("asu", "", lambda _rules, _flags: None),
        "GetId": ("", "s", lambda: guid),
        "ListNames": ("", "as", lambda: list(_OWNERS)),
        "ListActivatableNames": ("", "as", lambda: [BUS_NAME]),
        "NameHasOwner": ("s", "b", _OWNERS.__contains__),
        "GetNameOwner": ("s", "s", _OWNERS.get),
        "StartServiceByName": ("su", "u", lambda name, _flags: 2 if name in _OWNERS else None),
        "Ping": ("", "", lambda: None),
    }
    if message.member not in members:
        text = f"this is fimd's own socket and no bus: there is no {message.member}"
        return Message.new_error(message, _ERROR + "UnknownMethod", text)
    inputs, outputs, function = members[message.member]
    if message.signature != inputs:
        text = f"{message.member} takes ({inputs}), not ({message.signature})"
        return Message.new_error(message, _ERROR + "InvalidArgs", text)
    value = function(*message.body)
    if outputs and value is None:
        text = f"nobody on fimd's own socket has the name {message.body[0]}"
        return Message.new_error(message, _ERROR + "NameHasNoOwner", text)
    return Message.new_method_return(message, outputs, [value] if outputs else [])
