"""Whatever a client sends, it gets an answer in time: a result, or an error with a sentence."""

import os
import subprocess
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
    reply = connection.send_and_get_reply(new_method_call(address, member, *call), timeout=60)
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


def make_strange_things(directory: Path, layer: bytes) -> None:
    """Make what FIM_LAYERS may name: layers, damaged ones, and what is none."""
    (directory / "good").write_bytes(layer)
    (directory / "cut").write_bytes(layer[:-100])
    (directory / "zeros").write_bytes(bytes(len(layer)))
    (directory / "empty").touch()
    (directory / "closed").write_bytes(layer)
    (directory / "closed").chmod(0)
    os.mkfifo(directory / "fifo")
    (directory / "loop").symlink_to("loop")
    (directory / "up").symlink_to("..")
    (directory / "full").mkdir()
    (directory / "full" / "fifo").symlink_to("../fifo")
    (directory / "full" / "good").symlink_to("../good")
    (directory / "full" / "null").symlink_to("/dev/null")
    (directory / "full" / "zero").symlink_to("/dev/zero")


STRANGE = [
    *(b"good", b"cut", b"zeros", b"empty", b"closed", b"fifo", b"loop", b"up", b"full", b"damaged"),
    *(b".", b"..", b"good/x", b"app.flatimage", b"missing", b"", b"x" * 300, b"a/" * 3000),
]
LAYERS = st.lists(
    st.one_of(
        st.sampled_from(STRANGE).map(lambda name: SCRATCH + name),
        st.sampled_from([b"/dev/null", b"/dev/zero", b"/proc/self/mem", b"/proc/kmsg", b"/", b""]),
        PATHS,
    ),
    max_size=5,
)
DAMAGE = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=20)


def test_every_value_of_fim_layers_has_an_answer_in_time(
    session: Session, image: Path, connection: DBusConnection
) -> None:
    scratch = session.directory / "work"
    session.output("sh", "-c", "mkdir source; for n in 1 2 3; do echo $n > source/$n; done")
    session.output("fimctl", "layer", "create", "source", "some.layer")
    layer = (scratch / "some.layer").read_bytes()
    make_strange_things(scratch, layer)
    outcomes = {MessageType.error: 0, MessageType.method_return: 0}

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(LAYERS, DAMAGE, st.booleans())
    def starts(layers: list[bytes], damage: list[tuple[int, int]], union: bool) -> None:
        damaged = bytearray(layer)
        for offset, value in damage:
            damaged[offset % len(layer)] = value
        (scratch / "damaged").write_bytes(damaged)
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                options = {
                    "pid": ("u", process.pid),
                    "layers": ("aay", settle(layers, os.fsencode(scratch) + b"/")),
                    "overlay": ("s", "overlayfs" if union else "bwrap"),
                }
                call = ("aya{sv}", (os.fsencode(image), options))
                reply = ask(connection, ROOT, f"{BUS_NAME}.Manager", "StartInstance", *call)
                outcomes[reply.header.message_type] += 1
            finally:
                process.kill()

    starts()
    assert outcomes[MessageType.method_return] > 10, outcomes
    wait_for(lambda: session.objects("ps") == [], what="the release of every instance")
    assert session.output(image, "fim-exec", "true") == ""
    session.wait_until_clean(20)


@pytest.mark.parametrize("value", [":::", "/dev/zero:/dev/null", "/proc/self/mem", "x" * 20000])
def test_the_variable_itself_may_hold_anything(session: Session, image: Path, value: str) -> None:
    done = session.run(image, "fim-exec", "true", variables={"FIM_LAYERS": value}, seconds=20)
    assert done.returncode in {0, 125}
    assert "Traceback" not in done.stderr
    assert "fault of its own" not in done.stderr


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
