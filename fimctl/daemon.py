"""Calls to the daemon, which the bus starts where it does not run.

This is on the path of every start of an application: see fimctl.wire for what it may import.
"""

from __future__ import annotations

import os
import time

from fimctl import wire
from fimctl.connection import Connection
from fimctl.environment import data_option
from fimctl.errors import ClientError, DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Self

BUS_NAME: Final = "org.flatimage.Fim1"
ROOT: Final = "/org/flatimage/Fim1"
_ERROR_PREFIX: Final = "org.flatimage.Fim1.Error."
_PATIENCE: Final = 3.0
"""Seconds after which a call that is not answered asks whether anybody is about to."""
_SECONDS: Final = 60.0
_NOT_THERE: Final = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
)


class Daemon:
    """A connection to the daemon. Every call has a time limit, in seconds."""

    def __init__(self) -> None:
        """Connect to the session bus. Raises ClientError where there is none."""
        try:
            self.connection = Connection(_session_address())
        except (OSError, ValueError) as error:
            raise ClientError(
                f"the session bus can't be reached ({error}): log in with a session, or start a "
                f"shell by dbus-run-session"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def call(
        self,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        *,
        path: str = ROOT,
        seconds: float = _SECONDS,
    ) -> Any:
        """Call a method and return its out-arguments. Raises DaemonError."""
        try:
            reply = self._ask(path, interface, member, signature, body, seconds=seconds)
        except TimeoutError:
            raise ClientError(
                f"fimd did not answer within {seconds:g} s: see 'fimctl doctor' and 'fimctl logs'"
            ) from None
        except (OSError, ValueError) as error:
            raise ClientError(f"the session bus hung up ({error})") from error
        if reply.kind != wire.ERROR:
            return reply.body
        name = reply.fields.get(wire.ERROR_NAME, "")
        text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else name
        if name in _NOT_THERE:
            text = "fimd does not run and the bus can't start it: run 'fimctl setup', or 'fimd &'"
        elif name.startswith("org.freedesktop.DBus.Error.Spawn"):
            text = f"the bus could not start fimd ({text}): start 'fimd' by hand to see why"
        raise DaemonError(name.removeprefix(_ERROR_PREFIX), text)

    def _ask(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: tuple[Any, ...],
        *,
        seconds: float,
    ) -> wire.Message:
        """Send a call and wait for its reply, unless nobody is going to reply. Raises TimeoutError.

        A bus that has systemd start the daemon is not told where that fails, and says nothing.
        """
        serial = self.connection.send_call(BUS_NAME, path, interface, member, signature, body)
        deadline = time.monotonic() + seconds
        started = False
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self.connection.reply(serial, min(left, _PATIENCE))
            except TimeoutError:
                from fimctl.activation import check  # noqa: PLC0415 - most are answered at once

                check(_session_address(), start=not started)
                started = True
        raise TimeoutError

    def manager(
        self, member: str, signature: str = "", body: tuple[Any, ...] = (), *, wait: float = 0
    ) -> Any:
        """Call a method of the Manager, which may wait that long (seconds) before it begins."""
        seconds = _SECONDS + wait
        return self.call(f"{BUS_NAME}.Manager", member, signature, body, seconds=seconds)

    def reload_bus(self) -> None:
        """Have the bus read the activation files anew. Raises ClientError."""
        try:
            self.connection.call_bus("ReloadConfig")
        except (OSError, ValueError) as error:
            raise ClientError(f"the session bus can't be told of new files: {error}") from error

    def open_image(self, image: str) -> str:
        """Have the daemon read an image anew; return its object's path."""
        path = os.fsencode(os.path.abspath(image))
        [opened] = self.manager("OpenImage", "aya{sv}", (path, data_option(image)))
        return str(opened)

    def join_namespace(self) -> list[str]:
        """Return the beginning of a command that is run where everything is mounted.

        The namespace stays for as long as this process lives.
        """
        [join] = self.manager("JoinNamespace", "a{sv}", ({},))
        return [os.fsdecode(bytes(word)) for word in join]

    def image(
        self,
        path: str,
        member: str,
        signature: str,
        body: tuple[Any, ...],
        *,
        wait: float = 0,
    ) -> Any:
        """Call a method of an image, which may wait that long (seconds) before it begins."""
        seconds = _SECONDS + wait
        return self.call(f"{BUS_NAME}.Image", member, signature, body, path=path, seconds=seconds)

    def objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return every object's properties, by path and the interface's last word."""
        [managed] = self.call("org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        return {
            path: {
                interface.rpartition(".")[2]: {key: value[1] for key, value in properties.items()}
                for interface, properties in interfaces.items()
            }
            for path, interfaces in managed.items()
        }

    def properties(self, interface: str, path: str = ROOT) -> dict[str, Any]:
        """Return the properties of one interface of an object."""
        name = f"{BUS_NAME}.{interface}"
        [values] = self.call("org.freedesktop.DBus.Properties", "GetAll", "s", (name,), path=path)
        return {key: value[1] for key, value in values.items()}


def _session_address() -> str:
    """Return the bus's address."""
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    if address:
        return address
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    path = os.path.join(runtime, "bus")
    if not os.path.exists(path):
        raise ClientError(
            "there is no session bus (DBUS_SESSION_BUS_ADDRESS is not set): log in with a "
            "session, or start a shell by dbus-run-session"
        )
    return f"unix:path={path}"
