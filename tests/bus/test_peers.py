"""The daemon's own socket: what foreign clients get there, and what nobody gets away with."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message
from dbus_next.signature import Variant

from fimd.bus import peers
from fimd.bus.driver import NAME as BUS
from fimd.bus.driver import PATH as BUS_PATH
from fimd.bus.reading import FIXED, MessageError, measure
from fimd.bus.server import ObjectServer
from tests.bus.conftest import NAME, ROOT, Probe

pytestmark = pytest.mark.parametrize("is_bus", ["its own socket"], indirect=True)

GREETING = f"\0AUTH EXTERNAL {str(os.getuid()).encode().hex()}\r\nBEGIN\r\n".encode()


def connected(bus: str) -> socket.socket:
    """Connect as a client does that knows nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(bus.removeprefix("unix:path="))
    return client


def call(member: str, signature: str = "", *body: object, serial: int = 1) -> bytes:
    """Return the bytes of a call of the Probe."""
    message = Message(
        path=ROOT, interface=Probe.name, member=member, signature=signature, body=list(body)
    )
    message.serial = serial
    return bytes(message._marshall())  # type: ignore[no-untyped-call]


def until_the_end(client: socket.socket) -> bytes:
    """Return all that comes until the other side hangs up."""
    said = b""
    try:
        while data := client.recv(65536):
            said += data
    except ConnectionResetError:  # with something of ours unread
        pass
    return said


async def answers(bus: str) -> bool:
    """Tell whether another client is served as ever, and soon."""

    def ask() -> bool:
        with connected(bus) as other:
            other.sendall(GREETING + call("Echo", "s", "still here"))
            said = b""
            while b"still here" not in said:
                said += other.recv(4096)
            return True

    began = time.monotonic()
    return await asyncio.to_thread(ask) and time.monotonic() - began < 5


@pytest.fixture
async def library(bus: str, server: ObjectServer) -> AsyncIterator[MessageBus]:
    """A client by dbus-next, which takes everything for a bus."""
    client = await MessageBus(bus_address=bus).connect()
    yield client
    client.disconnect()  # type: ignore[no-untyped-call]
    await client.wait_for_disconnect()  # type: ignore[no-untyped-call]
    client._stream.close()  # the library leaves both to the garbage collector
    client._sock.close()


async def test_a_library_finds_objects_properties_and_signals(
    library: MessageBus, server: ObjectServer
) -> None:
    described = await library.introspect(NAME, ROOT)
    probe = library.get_proxy_object(NAME, ROOT, described).get_interface(Probe.name)
    assert await probe.call_echo("hello") == "hello"  # type: ignore[attr-defined]
    assert await probe.get_kind() == "probe"  # type: ignore[attr-defined]
    heard: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
    library.add_message_handler(
        lambda message: heard.set_result(tuple(message.body)) if message.member == "Said" else None
    )
    server.emit(ROOT, Probe(), "Said", 7, "it")
    assert await asyncio.wait_for(heard, 10) == (7, "it")


async def test_the_bus_that_it_takes_the_socket_for_has_two_names(library: MessageBus) -> None:
    async def ask(member: str, signature: str = "", *body: object) -> object:
        message = Message(BUS, BUS_PATH, BUS, member, signature=signature, body=list(body))
        reply = await library.call(message)
        assert reply is not None
        return reply.error_name or (reply.body[0] if reply.body else None)

    assert await ask("NameHasOwner", "s", "org.flatimage.Fim1") is True
    assert await ask("GetNameOwner", "s", "org.flatimage.Fim1") == ":1.0"
    assert await ask("GetNameOwner", "s", "org.example.Else") == f"{BUS}.Error.NameHasNoOwner"
    assert await ask("RequestName", "su", "org.example.Else", 0) == f"{BUS}.Error.UnknownMethod"
    assert await ask("GetNameOwner", "u", 7) == f"{BUS}.Error.InvalidArgs"


async def test_who_never_called_hears_nothing_and_who_did_hears_all(
    bus: str, server: ObjectServer
) -> None:
    def listen() -> tuple[bytes, bytes]:
        with connected(bus) as silent, connected(bus) as calls:
            silent.sendall(GREETING)
            calls.sendall(GREETING + call("Echo", "s", "hello"))
            said = b""
            while b"hello" not in said:
                said += calls.recv(4096)
            loop.call_soon_threadsafe(server.emit, ROOT, Probe(), "Said", 7, "a word")
            while b"a word" not in said:
                said += calls.recv(4096)
            return silent.recv(4096), said

    loop = asyncio.get_running_loop()
    silent, said = await asyncio.to_thread(listen)
    assert silent.startswith(b"OK ")
    assert b"Said" not in silent
    assert b"Said" in said


@pytest.mark.parametrize(
    "greeting",
    [
        b"\0AUTH\r\nAUTH EXTERNAL %(user)s\r\nBEGIN\r\n",
        b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n",
        b"\0AUTH EXTERNAL\r\nDATA %(user)s\r\nBEGIN\r\n",
        b"\0AUTH ANONYMOUS 00\r\nCANCEL\r\nAUTH EXTERNAL %(user)s\r\nBEGIN\r\n",
        b"\0HELLO\r\nAUTH EXTERNAL %(user)s\r\nBEGIN\r\n",
    ],
)
async def test_every_way_to_authenticate_leads_in(
    bus: str, server: ObjectServer, greeting: bytes
) -> None:
    def ask() -> bytes:
        with connected(bus) as client:
            user = {b"user": str(os.getuid()).encode().hex().encode()}
            client.sendall(greeting % user + call("Echo", "s", "hello"))
            said = b""
            while b"hello" not in said:
                said += client.recv(4096)
            return said

    assert b"OK " in await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0BEGIN\r\n",
        b"\0AUTH EXTERNAL 3939393939\r\nBEGIN\r\n",
        b"\0AUTH EXTERNAL zz\r\nBEGIN\r\n",
        b"\0" + b"x" * 200_000,
        b"\0" + b"AUTH\r\n" * 1000,
        GREETING + b"nonsense, and more than sixteen bytes of it",
        GREETING + call("Echo", "s", "hello")[:-4] + b"\xff\xff\xff\xff" + b"x" * 64,
        GREETING + b"l\1\0\1" + struct.pack("<III", 0xFFFFFFF0, 7, 0xFFFFFFF0),
        GREETING + b"l\1\0\1" + struct.pack("<III", 0, 7, 8) + b"\1\1o\0\xff\xff\xff\xff",
    ],
    ids=range(10),
)
async def test_who_speaks_nonsense_is_hung_up_on(
    bus: str, server: ObjectServer, sent: bytes
) -> None:
    def speak() -> bytes:
        with connected(bus) as client:
            try:
                client.sendall(sent)
            except (BrokenPipeError, ConnectionResetError):
                return b""
            client.shutdown(socket.SHUT_WR)
            return until_the_end(client)

    await asyncio.to_thread(speak)
    assert await answers(bus)


async def test_a_call_without_a_number_is_no_message(bus: str, server: ObjectServer) -> None:
    for member, place in (("Echo", ROOT), ("Hello", BUS_PATH)):
        message = Message(path=place, interface=Probe.name, member=member)
        message.serial = 0
        data = bytes(message._marshall())  # type: ignore[no-untyped-call]
        with pytest.raises(MessageError):
            measure(data[:FIXED])
    assert measure(call("Echo")[:FIXED]) == (len(call("Echo")), 1)


async def test_half_a_message_is_told_and_ends_the_connection(
    bus: str, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_SENDING", 0.3)

    def speak() -> bytes:
        with connected(bus) as client:
            client.sendall(GREETING + call("Echo", "s", "hello", serial=77)[:40])
            return until_the_end(client)

    said = await asyncio.to_thread(speak)
    assert b"org.freedesktop.DBus.Error.LimitsExceeded" in said
    assert b"no end of a message came" in said
    assert await answers(bus)


async def test_who_says_nothing_at_all_is_hung_up_on(
    bus: str, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_GREETING", 0.3)

    def wait() -> bytes:
        with connected(bus) as client:
            client.sendall(GREETING[:9])
            return until_the_end(client)

    assert await asyncio.to_thread(wait) == b""


async def test_a_message_that_is_too_large_is_told_before_it_is_sent(
    bus: str, server: ObjectServer
) -> None:
    def speak() -> bytes:
        with connected(bus) as client:
            start = call("Echo", "s", "x", serial=77)[:16]
            client.sendall(GREETING + start[:4] + struct.pack("<I", 64 << 20) + start[8:])
            return until_the_end(client)

    assert b"is too large" in await asyncio.to_thread(speak)


@pytest.mark.parametrize(
    ("signature", "value"),
    [("au", [0] * 500_000), ("av", [Variant("y", 0)] * 500_000), ("aay", [b""] * 500_000)],
    ids=["numbers", "variants", "words"],
)
async def test_a_giant_array_is_told_and_nobody_else_waits(
    bus: str, server: ObjectServer, signature: str, value: object
) -> None:
    data = await asyncio.to_thread(call, "Echo", signature, value)

    def speak() -> bytes:
        with connected(bus) as client:
            client.sendall(GREETING + data)
            return until_the_end(client)

    spoken = asyncio.create_task(asyncio.to_thread(speak))
    assert await answers(bus)
    assert b"it holds more than 400000 values" in await spoken


async def test_variants_within_variants_end(bus: str, server: ObjectServer) -> None:
    data = b"\1v\0" * 20_000 + b"\1y\0\0"
    head = call("Echo", "v", Variant("y", 0))
    [length] = struct.unpack("<I", head[4:8])
    whole = head[:4] + struct.pack("<I", len(data)) + head[8:-length] + data

    def speak() -> bytes:
        with connected(bus) as client:
            client.sendall(GREETING + whole)
            return until_the_end(client)

    assert b"this is no message" in await asyncio.to_thread(speak)
    assert await answers(bus)


async def test_who_does_not_read_is_hung_up_on(bus: str, server: ObjectServer) -> None:
    large = "x" * 200_000

    def speak() -> bool:
        with connected(bus) as client:
            client.settimeout(2)
            try:
                client.sendall(GREETING)
                for serial in range(1, 200):
                    client.sendall(call("Echo", "s", large, serial=serial))
            except (TimeoutError, ConnectionError):
                return True
        return False

    spoken = asyncio.create_task(asyncio.to_thread(speak))
    assert await answers(bus)
    assert await spoken


async def test_signals_that_nobody_reads_take_no_memory_for_ever(
    bus: str, server: ObjectServer
) -> None:
    def begin() -> socket.socket:
        client = connected(bus)
        client.sendall(GREETING + call("Echo", "s", "hello"))
        while b"hello" not in client.recv(4096):
            pass
        return client

    with await asyncio.to_thread(begin) as client:
        for _ in range(100):
            server.emit(ROOT, Probe(), "Said", 7, "y" * 100_000)
            await asyncio.sleep(0)
        said = await asyncio.to_thread(until_the_end, client)
    assert len(said) < 8 << 20


async def test_too_many_connections_of_one_process_are_refused_and_others_served(
    bus: str, server: ObjectServer
) -> None:
    script = (
        "import socket, sys\n"
        "kept = []\n"
        "for _ in range(10000):\n"
        "    one = socket.socket(socket.AF_UNIX)\n"
        "    one.connect(sys.argv[1])\n"
        "    kept.append(one)\n"
        "    if len(kept) > 500: kept.pop(100).close()\n"
        "print(kept[-1].recv(100).decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    path = bus.removeprefix("unix:path=")
    hog = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await answers(bus)
    assert hog.stdout is not None
    assert await hog.stdout.readline() == b"ERROR too many connections: close some\r\n"
    assert await answers(bus)
    hog.kill()
    await hog.wait()
    await asyncio.sleep(0.2)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(bus))
        assert await answers(bus)


async def test_a_process_that_goes_into_a_sandbox_has_left_its_rights_outside(
    bus: str, server: ObjectServer
) -> None:
    script = (
        "import os, socket, sys\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        "client.sendall(bytes.fromhex(sys.argv[2]))\n"
        "while b'hello' not in client.recv(4096): pass\n"
        "os.set_inheritable(client.fileno(), True)\n"
        "again = 'import socket, sys; client = socket.socket(fileno=int(sys.argv[1])); '\\\n"
        "    'client.sendall(bytes.fromhex(sys.argv[2])); print(client.recv(4096))'\n"
        "os.execvp('unshare', ['unshare', '-Ur', sys.executable, '-c', again,\n"
        "    str(client.fileno()), sys.argv[3]])\n"
    )
    first = GREETING + call("Echo", "s", "hello")
    second = call("Echo", "s", "again", serial=2)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, bus.removeprefix("unix:path="), first.hex(), second.hex()),
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert b"org.flatimage.Fim1.Error.AccessDenied" in output
    assert b"again" not in output


async def test_a_process_in_a_sandbox_hears_no_signals_and_sends_nothing_large(
    bus: str, server: ObjectServer
) -> None:
    script = (
        "import socket, sys\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        "client.sendall(bytes.fromhex(sys.argv[2]))\n"
        "said = b''\n"
        "while b'AccessDenied' not in said: said += client.recv(4096)\n"
        "print('refused', flush=True)\n"
        "sys.stdin.readline()\n"
        "client.sendall(bytes.fromhex(sys.argv[3]))\n"
        "said = b''\n"
        "while data := client.recv(4096): said += data\n"
        "print(said)\n"
    )
    large = call("Echo", "s", "x", serial=2)[:16]
    large = large[:4] + struct.pack("<I", 1 << 20) + large[8:]
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-Ur", sys.executable, "-c", script, bus.removeprefix("unix:path=")),
        *((GREETING + call("Echo", "s", "hello")).hex(), large.hex()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"refused\n"
    server.emit(ROOT, Probe(), "Said", 7, "a secret")
    process.stdin.write(b"\n")
    said = await process.stdout.read()
    await process.wait()
    assert b"is too large" in said
    assert b"secret" not in said


async def test_connections_leave_no_descriptor_behind(bus: str, server: ObjectServer) -> None:
    await answers(bus)
    await asyncio.sleep(0.1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        await answers(bus)
    await asyncio.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
