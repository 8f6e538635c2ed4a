"""The objects that the daemon serves, and the answers to calls of their members.

They are the same by whichever link they are called: a session bus, or a peer of the own socket.

dbus-next's own service announces objects from the wrong path and sends tracebacks to clients, so
only its messages are used here. Every error becomes a D-Bus error in one place: `_answer`.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog
from dbus_next.constants import MessageFlag
from dbus_next.message import Message
from dbus_next.signature import Variant

from fimd.base.errors import NO_ROOM, FimError, no_room
from fimd.bus.callers import Caller, refuse_confined
from fimd.bus.declare import Call, Interface, Member
from fimd.bus.introspect import document
from fimd.bus.options import plain_text
from fimd.bus.standard import Introspectable, ObjectManager, Peer, Properties

log = structlog.get_logger(__name__)

ERROR_PREFIX: Final = "org.flatimage.Fim1.Error."
_UNKNOWN: Final = "org.freedesktop.DBus.Error."
_STANDARD: Final = (Introspectable, Peer, Properties, ObjectManager)
_HARMLESS: Final = (Introspectable.name, Peer.name)
"""What tells what an object is, and nothing of what it has."""
_COALESCE: Final = 0.2
"""Seconds in which changes of an object are gathered into one signal: longer than a start takes,
which changes each of its layers."""


class Link(Protocol):
    """What calls come by, and signals go out by."""

    async def caller(self, message: Message) -> Caller:
        """Return who has sent a call. Raises AccessDeniedError where that can't be told."""
        ...

    def reply(self, message: Message) -> None:
        """Send a reply, unless the link has ended."""
        ...

    def signal(self, message: Message) -> None:
        """Send a signal to who wants it, unless the link has ended."""
        ...


class ObjectServer:
    """The objects, with ObjectManager at `root`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._links: set[Link] = set()
        self._objects: dict[str, dict[str, Interface]] = {}
        self._stale: dict[tuple[str, str], dict[str, Variant]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a call is being answered."""
        return bool(self._tasks)

    def attach(self, link: Link) -> None:
        """Send signals by a link from now on."""
        self._links.add(link)

    def detach(self, link: Link) -> None:
        """Send nothing more by a link."""
        self._links.discard(link)

    # objects

    def export(self, path: str, *interfaces: Interface) -> None:
        """Put an object on the bus and announce it."""
        self._objects[path] = {interface.name: interface for interface in interfaces}
        if path != self._root:
            body = [path, {item.name: item.properties() for item in interfaces}]
            self._emit(self._root, ObjectManager.name, "InterfacesAdded", "oa{sa{sv}}", body)

    def unexport(self, path: str) -> None:
        """Take an object from the bus, and say so."""
        names = list(self._objects.get(path, ()))
        if names:
            self._flush(path)
            del self._objects[path]
            self._emit(self._root, ObjectManager.name, "InterfacesRemoved", "oas", [path, names])

    def properties_changed(self, path: str) -> None:
        """Announce an object's properties soon; changes until then go out as one signal."""
        if not self._stale:
            asyncio.get_running_loop().call_later(_COALESCE, self._flush)
        for name in self._objects.get(path, ()):
            self._stale[path, name] = {}

    def _flush(self, only: str | None = None) -> None:
        """Announce what has changed of an object, or of all of them."""
        flushed = [key for key in self._stale if only in {None, key[0]}]
        for path, name in flushed:
            del self._stale[path, name]
            interface = self._objects.get(path, {}).get(name)
            if interface is None:
                continue
            values = interface.changing()
            if values:
                body = [name, values, []]
                self._emit(path, Properties.name, "PropertiesChanged", "sa{sv}as", body)

    def emit(self, path: str, interface: Interface, member: str, *body: object) -> None:
        """Emit a signal of an interface."""
        signature = "".join(kind for _, kind in interface.members[member].outputs)
        self._emit(path, interface.name, member, signature, list(body))

    def _emit(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        message = Message.new_signal(path, interface, member, signature, body)
        for link in tuple(self._links):
            link.signal(message)

    # calls

    def take(self, link: Link, message: Message) -> asyncio.Task[None]:
        """Answer a call that came by a link."""
        task = asyncio.create_task(self._answer(link, message), name=f"{message.member}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, link: Link, message: Message) -> None:
        try:
            caller = await link.caller(message)
            if caller.uid != os.getuid():
                reply = _error(message, _UNKNOWN + "AccessDenied", "this daemon is another user's")
            else:
                if message.interface not in _HARMLESS:
                    refuse_confined(caller)
                reply = await self._dispatch(message, caller)
        except FimError as error:
            reply = _error(message, ERROR_PREFIX + error.name, str(error))
        except asyncio.CancelledError:
            reply = _error(message, ERROR_PREFIX + "Cancelled", "fimd is leaving")
        except Exception as error:
            text = "fimd met a fault of its own: see its log"
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                text = no_room(error)
                log.error("a call failed", member=message.member, reason=text)
            else:
                log.exception("a call failed", member=message.member, path=message.path)
            reply = _error(message, ERROR_PREFIX + "Failed", text)
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            try:
                link.reply(reply)
            except Exception:
                log.exception("a reply could not be sent", member=message.member)
                link.reply(_error(message, ERROR_PREFIX + "Failed", "fimd met a fault of its own"))

    async def _dispatch(self, message: Message, caller: Caller) -> Message:
        answers: dict[str, Callable[[Message], Message]] = {
            "Introspect": self._introspect,
            "Get": self._get,
            "GetAll": self._get_all,
            "Set": self._set,
            "GetManagedObjects": self._managed,
            "Ping": Message.new_method_return,
            "GetMachineId": _machine_id,
        }
        for standard in _STANDARD:
            if message.interface == standard.name:
                member = standard.members.get(message.member)
                if member is None or member.kind != "method":
                    return _unknown_method(message)
                return _misfit(message, member) or answers[message.member](message)
        interfaces = self._objects.get(message.path)
        if interfaces is None:
            return _error(message, _UNKNOWN + "UnknownObject", f"there is no {message.path}")
        if message.interface is not None and message.interface not in interfaces:
            text = f"{message.path} has no interface {message.interface!r}"
            return _error(message, _UNKNOWN + "UnknownInterface", text)
        for interface in interfaces.values():
            member = interface.members.get(message.member)
            if member is None or member.kind != "method":
                continue
            if message.interface not in {None, interface.name}:
                continue
            if (misfit := _misfit(message, member)) is not None:
                return misfit
            function = getattr(interface, message.member)
            body = await function(Call(caller), *message.body)
            outputs = "".join(kind for _, kind in member.outputs)
            return Message.new_method_return(message, outputs, body or [])
        return _unknown_method(message)

    def _interface(self, message: Message) -> Interface | Message:
        interfaces = self._objects.get(message.path)
        if interfaces is None:
            return _error(message, _UNKNOWN + "UnknownObject", f"there is no {message.path}")
        interface = interfaces.get(message.body[0])
        if interface is None:
            text = f"{message.path} has no interface {message.body[0]!r}"
            return _error(message, _UNKNOWN + "UnknownInterface", text)
        return interface

    def _get(self, message: Message) -> Message:
        interface = self._interface(message)
        if isinstance(interface, Message):
            return interface
        name = message.body[1]
        member = interface.members.get(name)
        if member is None or member.kind != "property":
            text = f"{interface.name} has no property {name!r}"
            return _error(message, _UNKNOWN + "UnknownProperty", text)
        value = Variant(member.outputs[0][1], getattr(interface, name)())
        return Message.new_method_return(message, "v", [value])

    def _get_all(self, message: Message) -> Message:
        interface = self._interface(message)
        if isinstance(interface, Message):
            return interface
        return Message.new_method_return(message, "a{sv}", [interface.properties()])

    def _set(self, message: Message) -> Message:
        interface = self._interface(message)
        if isinstance(interface, Message):
            return interface
        text = f"{message.body[1]!r} can't be set: call the method that changes it"
        return _error(message, _UNKNOWN + "PropertyReadOnly", text)

    def _managed(self, message: Message) -> Message:
        if message.path != self._root:
            text = f"the object manager is at {self._root}"
            return _error(message, _UNKNOWN + "UnknownMethod", text)
        body = {
            path: {name: interface.properties() for name, interface in interfaces.items()}
            for path, interfaces in self._objects.items()
            if path != self._root
        }
        return Message.new_method_return(message, "a{oa{sa{sv}}}", [body])

    def _introspect(self, message: Message) -> Message:
        path = message.path.rstrip("/")
        described: list[type[Interface]] = []
        interfaces = self._objects.get(path)
        if interfaces is not None:
            described = [item for item in _STANDARD if path == self._root or item != ObjectManager]
            described += [type(interface) for interface in interfaces.values()]
        below = [other[len(path) + 1 :] for other in self._objects if other.startswith(path + "/")]
        children = sorted({other.split("/", 1)[0] for other in below})
        if not described and not children:
            return _error(message, _UNKNOWN + "UnknownObject", f"there is no {message.path}")
        return Message.new_method_return(message, "s", [document(described, children)])


def _machine_id(message: Message) -> Message:
    with open("/etc/machine-id") as file:
        return Message.new_method_return(message, "s", [file.read().strip()])


def _misfit(message: Message, member: Member) -> Message | None:
    """Return the error for arguments that the method does not take, None for those that it does."""
    signature = "".join(kind for _, kind in member.inputs)
    if signature == message.signature:
        return None
    text = f"{message.member} takes ({signature}), not ({message.signature})"
    return _error(message, _UNKNOWN + "InvalidArgs", text)


def _unknown_method(message: Message) -> Message:
    text = f"there is no method {message.member} of {message.interface} at {message.path}"
    return _error(message, _UNKNOWN + "UnknownMethod", text)


def _error(message: Message, name: str, text: str) -> Message:
    return Message.new_error(message, name, plain_text(text))
