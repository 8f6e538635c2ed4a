"""A thousand D-Bus calls with 50 instances, beside a trivial dbus-next service with the same data.

The client sends what it has made once and reads no more of a reply than its length, so that the
time is the bus's and the service's.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fimctl import wire
from fimctl.connection import Connection
from tests.bench.crowd import COUNT
from tests.bench.rows import Row, compared
from tests.bench.timing import in_turn
from tests.bench.world import make_image, make_layers, make_trees, new_session

_CALLS = 1000
_ROUNDS = 5
_OURS, _THEIRS = "org.flatimage.Fim1", "org.flatimage.Bench"
_ROOT = "/org/flatimage/Fim1"
_SERVICE = Path(__file__).with_name("bus_service.py")
_OBJECTS = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"


class Caller(Connection):
    """Calls again and again what was put into bytes once, and leaves the replies unread."""

    def many(self, request: bytes, count: int) -> bytes:
        """Call so many times, one after the other; return the last reply."""
        reply = b""
        for _ in range(count):
            self._socket.sendall(request)
            self._fill(wire.FIXED, None)
            size = wire.length(bytes(self._received[: wire.FIXED]))
            self._fill(size, None)
            reply = bytes(self._received[:size])
            del self._received[:size]
        return reply

    def raw_reply(self, *call: str) -> bytes:
        """Call once and return the reply's bytes."""
        self.call_bus("GetId")
        return self.many(wire.call(99, *call), 1)


def measure() -> Iterator[Row]:
    """Measure calls of the daemon and of the service in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="fimd-bench-") as name,
        new_session(is_own=True) as session,
    ):
        scratch, address = Path(name), session.environment["DBUS_SESSION_BUS_ADDRESS"]
        layers = make_layers(make_trees(scratch, 10), scratch)
        image = session.adopt(make_image(layers, scratch / "image"), "app.flatimage")
        for _ in range(COUNT):
            session.background(image, "sleep 3600")
        objects = session.directory / "work" / "objects"
        with contextlib.closing(Caller.to_bus(address)) as caller:
            objects.write_bytes(caller.raw_reply(_OURS, _ROOT, _OBJECTS, "GetManagedObjects"))
        service = session.start(
            sys.executable,
            str(_SERVICE),
            _THEIRS,
            str(objects),
            stdout=subprocess.PIPE,
            variables={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        with contextlib.closing(Caller.to_bus(address)) as caller:
            [managed] = caller.call(_OURS, _ROOT, _OBJECTS, "GetManagedObjects").body
            path = next(path for path in managed if "/instance/" in path)
            get = (f"{_OURS}.Instance", "State")
            for what, calls, arguments in (
                ("GetManagedObjects", _CALLS // 10, (_ROOT, _OBJECTS, "GetManagedObjects")),
                ("Properties.Get", _CALLS, (path, _PROPERTIES, "Get", "ss", get)),
                ("Properties.GetAll", _CALLS, (path, _PROPERTIES, "GetAll", "s", get[:1])),
            ):
                actions = {
                    kind: partial(caller.many, wire.call(99, name, *arguments), calls)
                    for kind, name in (("fimd", _OURS), ("trivial dbus-next service", _THEIRS))
                }
                rounds = in_turn(actions, _ROUNDS)
                yield compared(
                    f"{calls} calls of {what}, {COUNT} instances", rounds, *actions, most=1.5
                )
