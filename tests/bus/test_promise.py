"""The XML in dbus/ is the interface's promise: the daemon serves exactly that."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from fimd.base.errors import FimError
from fimd.bus.application import ApplicationInterface
from fimd.bus.catalogue import CatalogueInterface
from fimd.bus.declare import Interface
from fimd.bus.image import ImageInterface
from fimd.bus.instance import InstanceInterface
from fimd.bus.introspect import element
from fimd.bus.job import JobInterface
from fimd.bus.layer import LayerInterface
from fimd.bus.manager import ManagerInterface
from fimd.bus.runner import RunnerInterface
from fimd.bus.search_provider import SearchProviderInterface
from tests.support.session import Session, byte_by_byte

PROMISES = Path(__file__).resolve().parents[2] / "dbus"
INTERFACES: dict[str, type[Interface]] = {
    interface.name: interface
    for interface in (
        ManagerInterface,
        ImageInterface,
        LayerInterface,
        InstanceInterface,
        JobInterface,
        CatalogueInterface,
        ApplicationInterface,
        SearchProviderInterface,
        RunnerInterface,
    )
}


def structure(described: ET.Element) -> list[str]:
    """Return what counts of an <interface>: a sorted line for each member, arguments in order."""

    def line(item: ET.Element, default: str = "") -> str:
        facts = dict(item.attrib)
        if item.tag == "arg" and default:
            facts.setdefault("direction", default)
        inner = [line(child, "in" if item.tag == "method" else "") for child in item]
        return f"{item.tag} {sorted(facts.items())} {inner}"

    return sorted(line(item) for item in described)


def promised(name: str) -> ET.Element:
    root = ET.parse(PROMISES / f"{name}.xml").getroot()
    [interface] = root
    assert (root.tag, interface.tag, interface.get("name")) == ("node", "interface", name)
    return interface


def test_every_interface_has_its_file_and_every_file_its_interface() -> None:
    assert {path.stem for path in PROMISES.glob("*.xml")} == set(INTERFACES)


@pytest.mark.parametrize("name", INTERFACES)
def test_the_code_declares_what_was_promised(name: str) -> None:
    assert structure(element(INTERFACES[name])) == structure(promised(name))


@pytest.mark.parametrize("name", INTERFACES)
def test_every_member_is_documented(name: str) -> None:
    text = (PROMISES / f"{name}.xml").read_text()
    members = list(re.finditer(r'<(method|property|signal) name="(\w+)"', text))
    documented = re.findall(r'\S\s*-->\s*<(?:method|property|signal) name="(\w+)"', text)
    assert [member[2] for member in members] == documented


def test_the_manual_page_names_everything() -> None:
    text = (PROMISES.parent / "packaging" / "man" / "org.flatimage.Fim1.5").read_text()
    words = set(re.findall(r"[\w.]+", text.replace("\\-", "-")))
    words |= {word.rstrip(".") for word in words}
    ours = {name: item for name, item in INTERFACES.items() if name.startswith("org.flatimage.")}
    members = {member for interface in ours.values() for member in interface.members}
    assert {*INTERFACES, *members} - words == set()
    errors = {error.name for error in every_error(FimError)}
    assert errors - words == set()


def every_error(kind: type[FimError]) -> set[type[FimError]]:
    return {kind}.union(*(every_error(below) for below in kind.__subclasses__()))


@pytest.mark.parametrize("is_bus", [True, False], ids=["session bus", "own socket"])
def test_the_daemon_serves_what_was_promised(session: Session, image: Path, is_bus: bool) -> None:
    session.output(image, "fim-exec", "true")
    address = f"unix:path={session.tree}/bus"
    gdbus_way = ["--session"] if is_bus else ["--address", address]
    busctl_way = "--user" if is_bus else f"--address={address}"
    instance = session.background(image, "sleep 30")
    (session.directory / "work" / "files").mkdir()
    job = session.output(
        *["gdbus", "call", *gdbus_way, "-d", "org.flatimage.Fim1", "-o", "/org/flatimage/Fim1"],
        *["-m", "org.flatimage.Fim1.Manager.CreateLayer"],
        byte_by_byte(session.directory / "work" / "files"),
        byte_by_byte(session.directory / "work" / "layer"),
        "{}",
    )
    assert "/job/" in job
    listed = session.output("busctl", busctl_way, "--list", "tree", "org.flatimage.Fim1")
    served: dict[str, list[str]] = {}
    for path in listed.split():
        described = session.output(
            *["gdbus", "introspect", "--xml", *gdbus_way, "-d", "org.flatimage.Fim1", "-o"], path
        )
        for interface in ET.fromstring(described).findall("interface"):
            served[interface.get("name", "")] = structure(interface)
    instance.kill()
    ours = {name: served.get(name) for name in INTERFACES}
    assert ours == {name: structure(promised(name)) for name in INTERFACES}
    theirs = set(served) - set(INTERFACES)
    assert theirs == {
        f"org.freedesktop.DBus.{name}"
        for name in ("Introspectable", "Peer", "Properties", "ObjectManager")
    }
