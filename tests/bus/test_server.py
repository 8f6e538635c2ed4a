import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, MessageType, new_method_call
from jeepney.io.asyncio import open_dbus_connection
from jeepney.io.blocking import open_dbus_connection as open_blocking_connection

from fimd.bus.buses import Buses
from fimd.bus.connection import Connection
from fimd.bus.server import ObjectServer
from tests.bus.conftest import NAME, ROOT, Client, Probe
from tests.support.account import Account

MANAGER = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
UNKNOWN = "org.freedesktop.DBus.Error."
FAILED = "org.flatimage.Fim1.Error.Failed"


async def test_managed_objects_are_all_but_the_root(server: ObjectServer, client: Client) -> None:
    server.export(f"{ROOT}/thing/1", Probe())
    [objects] = await client.call("GetManagedObjects", interface=MANAGER)
    expected = {Probe.name: {"Count": ("u", 0), "Kind": ("s", "probe")}}
    assert objects == {f"{ROOT}/thing/1": expected}


async def test_only_the_root_manages_objects(server: ObjectServer, client: Client) -> None:
    server.export(f"{ROOT}/thing/1", Probe())
    name, text = await client.call("GetManagedObjects", interface=MANAGER, path=f"{ROOT}/thing/1")
    assert (name, text) == (UNKNOWN + "UnknownMethod", f"the object manager is at {ROOT}")


async def test_objects_come_and_go_by_signals_of_the_object_managers_path(
    server: ObjectServer, client: Client
) -> None:
    path = f"{ROOT}/thing/1"
    server.export(path, Probe())
    server.unexport(path)
    server.unexport(path)
    properties = {"Count": ("u", 0), "Kind": ("s", "probe")}
    assert await client.hear(2) == [
        (ROOT, "InterfacesAdded", (path, {Probe.name: properties})),
        (ROOT, "InterfacesRemoved", (path, [Probe.name])),
    ]
    await client.call("Echo", "s", ("that was all",))
    assert len(client.signals) == 2


async def test_changes_at_once_are_one_signal_of_what_can_change(
    server: ObjectServer, client: Client
) -> None:
    probe = Probe()
    server.export(f"{ROOT}/thing/1", probe)
    for count in range(1, 100):
        probe.count = count
        server.properties_changed(f"{ROOT}/thing/1")
    _, *changes = await client.hear(2)
    body: tuple[Any, ...] = (Probe.name, {"Count": ("u", 99)}, [])
    assert changes == [(f"{ROOT}/thing/1", "PropertiesChanged", body)]
    await asyncio.sleep(0.05)
    await client.call("Echo", "s", ("that was all",))
    assert len(client.signals) == 2


async def test_a_last_change_is_told_before_the_object_goes(
    server: ObjectServer, client: Client
) -> None:
    probe = Probe()
    server.export(f"{ROOT}/thing/1", probe)
    probe.count = 7
    server.properties_changed(f"{ROOT}/thing/1")
    server.unexport(f"{ROOT}/thing/1")
    members = [member for _, member, _ in await client.hear(3)]
    assert members == ["InterfacesAdded", "PropertiesChanged", "InterfacesRemoved"]


async def test_an_error_has_its_name_and_one_sentence(client: Client) -> None:
    name, text = await client.call("Refuse", "s", ("spoon",))
    assert name == "org.flatimage.Fim1.Error.NotFound"
    assert text == "there is no spoon: look elsewhere"


@pytest.mark.parametrize("member", ["Crash", "Lie"])
async def test_a_fault_of_the_code_shows_nothing_of_it(
    client: Client, member: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, text = await client.call(member)
    assert name == FAILED
    assert "\n" not in text
    assert "secret" not in text
    assert "fault of its own" in text
    assert await client.call("Echo", "s", ("still here",)) == ("still here",)


async def test_a_cancelled_call_is_answered(client: Client) -> None:
    name, text = await client.call("Abandon")
    assert (name, text) == ("org.flatimage.Fim1.Error.Cancelled", "fimd is leaving")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"member": "Nothing"}, "UnknownMethod", "Nothing"),
        ({"member": "Echo", "interface": "org.example.No"}, "UnknownInterface", "org.example.No"),
        ({"member": "Echo", "path": "/nowhere"}, "UnknownObject", "/nowhere"),
        ({"member": "Echo"}, "InvalidArgs", "Echo takes (s), not ()"),
        ({"member": "Echo", "signature": "u", "body": (1,)}, "InvalidArgs", "(u)"),
        ({"member": "Said"}, "UnknownMethod", "Said"),
        ({"member": "Count"}, "UnknownMethod", "Count"),
        ({"member": "Names", "signature": "as", "body": ([],)}, "InvalidArgs", "a{sv}"),
        (
            {"member": "Get", "interface": PROPERTIES, "signature": "s", "body": ("x",)},
            "InvalidArgs",
            "Get takes (ss), not (s)",
        ),
        ({"member": "Nothing", "interface": PROPERTIES}, "UnknownMethod", "Nothing"),
        ({"member": "Introspect", "interface": MANAGER}, "UnknownMethod", "Introspect"),
        (
            {
                "member": "Introspect",
                "interface": "org.freedesktop.DBus.Introspectable",
                "path": "/nowhere",
            },
            "UnknownObject",
            "/nowhere",
        ),
    ],
)
async def test_what_is_not_there_is_refused_by_name(
    client: Client, call: dict[str, Any], error: str, words: str
) -> None:
    name, text = await client.call(**call)
    assert name == UNKNOWN + error
    assert words in text


@pytest.mark.parametrize(
    ("member", "signature", "body", "error"),
    [
        ("Get", "ss", (Probe.name, "Missing"), "UnknownProperty"),
        ("Get", "ss", (Probe.name, "Echo"), "UnknownProperty"),
        ("Get", "ss", ("org.example.No", "Count"), "UnknownInterface"),
        ("GetAll", "s", ("org.example.No",), "UnknownInterface"),
        ("Set", "ssv", (Probe.name, "Count", ("u", 1)), "PropertyReadOnly"),
    ],
)
async def test_properties_that_are_not_there_are_refused_by_name(
    client: Client, member: str, signature: str, body: tuple[Any, ...], error: str
) -> None:
    name, text = await client.call(member, signature, body, interface=PROPERTIES)
    assert name == UNKNOWN + error
    assert text


async def test_properties_are_read_one_by_one_and_together(client: Client) -> None:
    one = await client.call("Get", "ss", (Probe.name, "Kind"), interface=PROPERTIES)
    assert one == (("s", "probe"),)
    [everything] = await client.call("GetAll", "s", (Probe.name,), interface=PROPERTIES)
    assert everything == {"Count": ("u", 0), "Kind": ("s", "probe")}


async def test_a_method_is_found_without_its_interface(client: Client) -> None:
    assert await client.call("Echo", "s", ("me",), interface=None) == ("me",)


async def test_parents_of_objects_are_introspected_for_their_children(
    server: ObjectServer, client: Client
) -> None:
    server.export(f"{ROOT}/thing/1", Probe())
    [text] = await client.call(
        "Introspect", interface="org.freedesktop.DBus.Introspectable", path=f"{ROOT}/thing"
    )
    assert '<node name="1"' in text
    assert "<interface" not in text


async def test_thousands_of_signals_to_a_slow_reader_end_no_connection(
    bus: str, server: ObjectServer, client: Client
) -> None:
    async with await open_dbus_connection(bus) as connection:
        slow = Client(connection, NAME)
        await slow.listen()
        probe = Probe()
        server.export(ROOT, probe)
        for number in range(2000):
            server.emit(ROOT, probe, "Said", number, "x" * 1000)
        assert await client.call("Echo", "s", ("still here",)) == ("still here",)
        numbers = [body[0] for _, member, body in await slow.hear(2000) if member == "Said"]
    assert numbers == list(range(2000))


@pytest.fixture
def quiet() -> Iterator[None]:
    """No messages of the loop while descriptors are counted."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    yield
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("member", "answer"), [("Look", (True,)), ("Echo", None), ("Nothing", None)]
)
async def test_descriptors_that_come_with_a_call_are_closed(
    bus: str, client: Client, member: str, answer: tuple[bool] | None, quiet: None
) -> None:
    def pass_descriptors(count: int) -> list[Any]:
        answers = []
        address = DBusAddress(ROOT, bus_name=NAME, interface=Probe.name)
        with (
            closing(open_blocking_connection(bus, enable_fds=True)) as connection,
            open(os.devnull, "rb") as file,
        ):
            for _ in range(count):
                message = new_method_call(address, member, "h", (file,))
                reply = connection.send_and_get_reply(message, timeout=60)
                failed = reply.header.message_type is MessageType.error
                answers.append(None if failed else reply.body)
        return answers

    await asyncio.to_thread(pass_descriptors, 2)
    before = len(os.listdir("/proc/self/fd"))
    answers = await asyncio.to_thread(pass_descriptors, 50)
    assert answers == [answer] * 50
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root can call as another user")
async def test_another_user_is_refused(
    bus: str, is_bus: bool, client: Client, plain_account: Account, open_directory: Path
) -> None:
    command = [
        "dbus-send",
        f"--bus={bus}",
        "--print-reply",
        f"--dest={NAME}",
        ROOT,
        f"{Probe.name}.Echo",
        "string:me",
    ]

    def send(switch: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, **switch, check=False, capture_output=True, text=True, timeout=60
        )

    other = await asyncio.to_thread(send, plain_account.switch)
    assert other.returncode == 1
    said = "org.freedesktop.DBus.Error.AccessDenied: this daemon is another user's"
    assert (said if is_bus else "Failed to register on connection") in other.stderr
    own = await asyncio.to_thread(send, {})
    assert 'string "me"' in own.stdout


async def test_a_call_that_wants_no_reply_gets_none(bus: str, server: ObjectServer) -> None:
    script = (
        "import sys\n"
        "from jeepney import DBusAddress, new_method_call, MessageFlag\n"
        "from jeepney.io.blocking import open_dbus_connection\n"
        "connection = open_dbus_connection(sys.argv[1])\n"
        f"address = DBusAddress({ROOT!r}, bus_name={NAME!r}, interface={Probe.name!r})\n"
        "message = new_method_call(address, 'Crash')\n"
        "message.header.flags |= MessageFlag.no_reply_expected\n"
        "connection.send(message)\n"
        "try:\n"
        "    while True:\n"
        "        received = connection.receive(timeout=0.5)\n"
        "        assert received.header.fields.get(7) == 'org.freedesktop.DBus', received\n"
        "except TimeoutError:\n"
        "    print('silence')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, bus, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert output == b"silence\n"


@pytest.mark.parametrize("is_bus", ["a bus"], indirect=True)
async def test_a_bus_is_connected_to_once_for_as_long_as_it_is_there(
    bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    really = Connection.open.__func__  # type: ignore[attr-defined] # of a classmethod

    async def counted(kind: type[Connection], address: str) -> Connection:
        opened.append(address)
        return await really(kind, address)  # type: ignore[no-any-return]

    monkeypatch.setattr(Connection, "open", classmethod(counted))
    buses = Buses(ObjectServer(ROOT), NAME)
    for _ in range(3):
        await buses.join(bus, is_told=True)
    assert opened == [bus]
    await buses.close()
    await buses.join(bus, is_told=True)
    assert opened == [bus, bus]
    await buses.close()
