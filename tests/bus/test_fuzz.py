"""Whatever a client sends, it gets an answer in time: a result, or an error with a sentence."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.low_level import SizeLimitError

from tests.support.account import PROJECT
from tests.support.session import Session, wait_for

BUS_NAME = "org.flatimage.Fim1"
ROOT = "/org/flatimage/Fim1"
LEAVES = {"Shutdown"}  # the daemon would leave
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
# Whatever is written goes below a directory of the test's; what lies elsewhere is no absolute path.
SCRATCH = b"/SCRATCH/"
NAMES = st.binary(max_size=60).map(lambda name: name.replace(b"/", b"_").replace(b".", b"_"))
PATHS = st.one_of(
    NAMES,
    NAMES.map(lambda name: SCRATCH + name),
    st.sampled_from([b"", SCRATCH, SCRATCH + b"x" * 5000, SCRATCH + b"app", SCRATCH + b"fifo"]),
)
OPTIONS = st.dictionaries(
    st.sampled_from(["pid", "mode", "root", "layers", "overlay", "data", "level", "x", "command"]),
    st.one_of(
        st.integers(0, 2**32 - 1).map(lambda number: ("u", number)),
        st.booleans().map(lambda value: ("b", value)),
        TEXT.map(lambda text: ("s", text)),
        PATHS.map(lambda path: ("ay", path)),
        st.lists(PATHS, max_size=3).map(lambda paths: ("aay", paths)),
    ),
    max_size=4,
)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "ay": PATHS,
    "s": TEXT,
    "a{sv}": OPTIONS,
    "u": st.integers(0, 2**32 - 1),
    "aay": st.lists(PATHS, max_size=3),
    "b": st.booleans(),
    "t": st.integers(0, 2**64 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "as": st.lists(TEXT, max_size=3),
    "o": st.just("/org/flatimage/Fim1"),
}


def methods() -> list[tuple[str, str, tuple[str, ...]]]:
    """Every method of the promised interfaces: interface, name, types of the arguments."""
    found = []
    for file in sorted((PROJECT / "dbus").glob("*.xml")):
        for interface in ET.parse(file).getroot().iter("interface"):
            for method in interface.iter("method"):
                types = [
                    arg.attrib["type"]
                    for arg in method.iter("arg")
                    if arg.attrib["direction"] == "in"
                ]
                found.append((interface.attrib["name"], method.attrib["name"], tuple(types)))
    return [item for item in found if item[1] not in LEAVES]


@pytest.fixture
def connection(session: Session) -> Any:
    """A connection of the session's account to its bus."""
    if session.account.uid != os.getuid():
        pytest.skip("the bus takes its own user only")
    session.output("fimctl", "status")
    with open_dbus_connection(f"unix:path={session.directory}/run/bus") as connection:
        yield connection


def settle(value: Any, scratch: bytes) -> Any:
    """Put the test's own directory into paths, however deep they lie."""
    if isinstance(value, bytes):
        return value.replace(SCRATCH, scratch)
    if isinstance(value, dict):
        return {key: settle(item, scratch) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(settle(item, scratch) for item in value)
    return value


def jobs(connection: DBusConnection) -> list[dict[str, Any]]:
    """The properties of every job."""
    manager = "org.freedesktop.DBus.ObjectManager"
    [managed] = ask(connection, ROOT, manager, "GetManagedObjects").body
    return [
        {key: value[1] for key, value in interfaces[f"{BUS_NAME}.Job"].items()}
        for interfaces in managed.values()
        if f"{BUS_NAME}.Job" in interfaces
    ]


def ask(connection: DBusConnection, path: str, interface: str, member: str, *call: Any) -> Any:
    """Call, and check that the answer is one."""
    address = DBusAddress(path, bus_name=BUS_NAME, interface=interface)
    reply = connection.send_and_get_reply(new_method_call(address, member, *call), timeout=20)
    if reply.header.message_type is MessageType.error:
        name = reply.header.fields[HeaderFields.error_name]
        assert name.startswith(("org.flatimage.Fim1.Error.", "org.freedesktop.DBus.Error.")), name
        [text] = reply.body
        assert text
        assert "Traceback" not in text
        assert "fault of its own" not in text, (member, call)
    return reply


def test_every_method_answers_whatever_it_is_given(
    session: Session, image: Path, connection: DBusConnection
) -> None:
    scratch = session.directory / "work"
    os.mkfifo(scratch / "fifo")
    real = os.fsencode(image)
    [opened] = ask(connection, ROOT, f"{BUS_NAME}.Manager", "OpenImage", "aya{sv}", (real, {})).body
    paths = {f"{BUS_NAME}.Manager": ROOT, f"{BUS_NAME}.Image": opened}

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def calls(data: st.DataObject) -> None:
        interface, member, types = data.draw(
            st.sampled_from([item for item in methods() if item[0] in paths])
        )
        body = tuple(data.draw(BY_TYPE[kind]) for kind in types)
        try:
            body = settle(body, os.fsencode(scratch) + b"/")
            ask(connection, paths[interface], interface, member, "".join(types) or None, body)
        except SizeLimitError:
            return

    calls()
    wait_for(
        lambda: all(job["State"] not in {"queued", "running"} for job in jobs(connection)),
        seconds=60,
        what="the end of every job",
    )
    assert session.output(image, "fim-exec", "true") == ""


def test_wrong_signatures_and_names_are_refused(
    connection: DBusConnection,
) -> None:
    manager = f"{BUS_NAME}.Manager"
    calls: list[tuple[str | None, tuple[Any, ...]]] = [
        ("s", ("x",)),
        (None, ()),
        ("aya{sv}s", (b"/", {}, "x")),
        ("av", ([("s", "x")],)),
    ]
    for call in calls:
        reply = ask(connection, ROOT, manager, "StartInstance", *call)
        assert reply.header.message_type is MessageType.error
    for path, interface, member in (
        (ROOT, manager, "NoSuchMethod"),
        (ROOT, "org.example.None", "StartInstance"),
        ("/nowhere", manager, "StartInstance"),
        (ROOT, manager, "members"),
        (ROOT, manager, "__init__"),
    ):
        reply = ask(connection, path, interface, member)
        assert reply.header.message_type is MessageType.error
