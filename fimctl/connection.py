"""A connection to a session bus, or to the daemon itself, that waits for its answers.

The first call goes out together with the authentication, so that the bus and the client take turns
once and not four times. What is imported here is on the path of every start: see fimctl.wire.
"""

from __future__ import annotations

import os
import sys
import time

# what `socket` wraps
from _socket import AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from fimctl import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final, Self

_BUS: Final = "org.freedesktop.DBus"
_BUS_PATH: Final = "/org/freedesktop/DBus"
_ALL_IDS: Final = [b"0", b"0", b"4294967295"]
_CHUNK: Final = 64 << 10
_LONGEST_LINE: Final = 4096
_LONGEST_PATH: Final = 107
"""Bytes of a socket's path (unix(7))."""
_SECONDS: Final = 25.0
"""That the bus itself may take, as in libdbus."""


class Connection:
    """A connection.

    Raises OSError where the other side hangs up; TimeoutError, which is one, where it takes too
    long; ValueError where what it says makes no sense.
    """

    def __init__(self, connected: socket, *, is_bus: bool) -> None:
        self._socket = connected
        self._received = bytearray()
        self._serial = 0
        self._authenticated = False
        user = str(os.getuid()).encode().hex()
        hello = self._call_bytes(_BUS, _BUS_PATH, _BUS, "Hello") if is_bus else b""
        self._unsent = f"\0AUTH EXTERNAL {user}\r\nBEGIN\r\n".encode() + hello

    @classmethod
    def to_bus(cls, address: str) -> Self:
        """Connect to a bus. Raises OSError or ValueError where it is not there."""
        return cls(_connect(address), is_bus=True)

    @classmethod
    def to_daemon(cls, path: str) -> Self:
        """Connect to the daemon's own socket. Raises OSError where this user's does not listen."""
        return cls(_connect_own(os.fsencode(path)), is_bus=False)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        seconds: float = _SECONDS,
    ) -> wire.Message:
        """Call a method and return the reply, which may be an error. What else comes is dropped."""
        serial = self.send_call(destination, path, interface, member, signature, body)
        return self.reply(serial, seconds)

    def send_call(self, *arguments: Any) -> int:
        """Send a call, with the arguments of `call`; return the number that `reply` waits for."""
        request = self._call_bytes(*arguments)
        self._send(self._unsent + request, time.monotonic() + _SECONDS)
        self._unsent = b""
        return self._serial

    def reply(self, serial: int, seconds: float) -> wire.Message:
        """Return the reply to a call; after a TimeoutError it may be asked for again."""
        deadline = time.monotonic() + seconds
        while True:
            message = self._next(deadline)
            if message.fields.get(wire.REPLY_SERIAL) == serial:
                return message

    def call_bus(self, member: str, signature: str = "", body: Sequence[Any] = ()) -> wire.Message:
        """Call a method of the bus itself."""
        return self.call(_BUS, _BUS_PATH, _BUS, member, signature, body)

    def subscribe(self, sender: str, path: str | None = None) -> None:
        """Have `receive` return a sender's signals, of objects at and below a path."""
        below = f",path_namespace='{path}'" if path is not None else ""
        self.call_bus("AddMatch", "s", (f"type='signal',sender='{sender}'{below}",))

    def receive(self, seconds: float | None = None) -> wire.Message:
        """Return the next message; waits for ever without a limit."""
        return self._next(None if seconds is None else time.monotonic() + seconds)

    def _call_bytes(self, *arguments: Any) -> bytes:
        self._serial += 1
        return wire.call(self._serial, *arguments)

    def _send(self, data: bytes, deadline: float) -> None:
        self._limit(deadline)
        self._socket.sendall(data)

    def _next(self, deadline: float | None) -> wire.Message:
        if not self._authenticated:
            line = self._line(deadline)
            if not line.startswith(b"OK "):
                raise PermissionError(13, f"it refused this user: {line.decode(errors='replace')}")
            self._authenticated = True
        self._fill(wire.FIXED, deadline)
        size = wire.length(bytes(self._received[: wire.FIXED]))
        self._fill(size, deadline)
        data = bytes(self._received[:size])
        del self._received[:size]
        return wire.parse(data)

    def _line(self, deadline: float | None) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > _LONGEST_LINE:
                raise ValueError("no answer to the authentication")
            self._fill(len(self._received) + 1, deadline)
        line = bytes(self._received[:end])
        del self._received[: end + 2]
        return line

    def _fill(self, size: int, deadline: float | None) -> None:
        """Receive until so many bytes are there; those that came stay for the next time."""
        while len(self._received) < size:
            self._limit(deadline)
            data = self._socket.recv(_CHUNK)
            if not data:
                raise ConnectionResetError(104, "it hung up")
            self._received += data

    def _limit(self, deadline: float | None) -> None:
        if deadline is None:
            self._socket.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _connect_own(path: bytes) -> socket:
    """Connect to a socket on which a process of this user listens."""
    own = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        if len(path) <= _LONGEST_PATH:
            own.connect(path)
        else:
            directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
            try:
                own.connect(b"/proc/self/fd/%d/%b" % (directory, os.path.basename(path)))
            finally:
                os.close(directory)
        listener = own.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        pid, uid = (int.from_bytes(listener[at : at + 4], sys.byteorder) for at in (0, 4))
        if uid != os.getuid():
            raise PermissionError(13, "another user listens there")
        if pid and _ids("self") == _ALL_IDS and _ids(pid) != _ALL_IDS:
            raise PermissionError(13, "a process in a sandbox listens there")
    except BaseException:
        own.close()
        raise
    return own


def _ids(pid: int | str) -> list[bytes]:
    """Return how a process's user ids are mapped: what a sandbox can't hide."""
    with open(f"/proc/{pid}/uid_map", "rb", 0) as file:
        return file.read(64).split()


def _connect(addresses: str) -> socket:
    """Connect to the first that answers of a list of addresses (D-Bus specification)."""
    failed: OSError | ValueError = ValueError(f"{addresses!r} is no address of a bus on a socket")
    for address in addresses.split(";"):
        transport, _, rest = address.partition(":")
        facts = dict(pair.split("=", 1) for pair in rest.split(",") if "=" in pair)
        if "path" in facts:
            place = _unescaped(facts["path"])
        elif "abstract" in facts:
            place = b"\0" + _unescaped(facts["abstract"])
        else:
            continue
        if transport != "unix":
            continue
        candidate = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            candidate.connect(place)
        except OSError as error:
            candidate.close()
            failed = error
        else:
            return candidate
    raise failed


def _unescaped(value: str) -> bytes:
    first, *rest = os.fsencode(value).split(b"%")
    return first + b"".join(bytes((int(part[:2], 16),)) + part[2:] for part in rest)
