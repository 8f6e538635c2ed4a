"""The client's connection to a bus: addresses, authentication, and a bus that misbehaves."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fimctl import wire
from fimctl.connection import Connection
from tests.support.session import Session

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


@contextlib.contextmanager
def bus_that(behaves: Callable[[socket.socket], None], place: str | bytes) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                behaves(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)
        assert not thread.is_alive()


def call(address: str, seconds: float = 5.0) -> wire.Message:
    with contextlib.closing(Connection.to_bus(address)) as connection:
        return connection.call(*BUS, "GetId", seconds=seconds)


def refuse(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"REJECTED EXTERNAL\r\n")
    client.recv(4096)


def keep_silent(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def hang_up(client: socket.socket) -> None:
    client.recv(4096)


def babble(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"OK 1234\r\n" + b"nonsense" * 10)
    client.recv(4096)


@pytest.mark.parametrize(
    ("behaves", "error"),
    [
        (refuse, PermissionError),
        (keep_silent, TimeoutError),
        (hang_up, OSError),
        (babble, ValueError),
    ],
)
def test_a_bus_that_misbehaves_is_an_error_in_time(
    tmp_path: Path, behaves: Callable[[socket.socket], None], error: type[Exception]
) -> None:
    began = time.monotonic()
    with bus_that(behaves, str(tmp_path / "bus")), pytest.raises(error):
        call(f"unix:path={tmp_path}/bus", seconds=0.3)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["", "tcp:host=localhost,port=1", "unix:", "nonsense", ";;"])
def test_an_address_that_is_no_socket_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        Connection.to_bus(address)


def test_a_real_bus_answers_at_each_form_of_its_address(session: Session) -> None:
    address = session.environment["DBUS_SESSION_BUS_ADDRESS"]
    path = address.removeprefix("unix:path=")
    escaped = "".join(f"%{value:02x}" for value in path.encode())
    forms = (address, f"unix:path=/absent;{address},guid=12", f"unix:path={escaped}")
    for form in forms:
        code = (
            "import sys; from fimctl.connection import Connection;"
            f"print(Connection.to_bus(sys.argv[1]).call(*{BUS!r}, 'GetId').body)"
        )
        done = session.run(session.account.python, "-c", code, form)
        assert done.returncode == 0, done.stderr


def test_an_abstract_socket_is_an_address(tmp_path: Path) -> None:
    name = f"fimd-test-{tmp_path.name}"
    with bus_that(refuse, f"\0{name}"), pytest.raises(PermissionError):
        call(f"unix:abstract={name}")
