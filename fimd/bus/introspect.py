"""Introspection data, in the XML of the D-Bus specification."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Final

from fimd.bus.declare import Interface

_DOCTYPE: Final = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    '"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_EMITS_CHANGED: Final = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def element(interface: type[Interface]) -> ET.Element:
    """Return the <interface> element of an interface, its members in the order of the class."""
    described = ET.Element("interface", name=interface.name)
    for name, member in interface.members.items():
        if member.kind == "property":
            kind = member.outputs[0][1]
            item = ET.SubElement(described, "property", name=name, type=kind, access="read")
            if member.constant:
                ET.SubElement(item, "annotation", name=_EMITS_CHANGED, value="const")
            continue
        item = ET.SubElement(described, member.kind, name=name)
        for direction, arguments in (("in", member.inputs), ("out", member.outputs)):
            for argument, kind in arguments:
                attributes = {"name": argument, "type": kind}
                if member.kind == "method":
                    attributes["direction"] = direction
                ET.SubElement(item, "arg", attributes)
    return described


def document(interfaces: Iterable[type[Interface]], children: Iterable[str]) -> str:
    """Return what Introspect answers for an object."""
    node = ET.Element("node")
    node.extend(element(interface) for interface in interfaces)
    for child in children:
        ET.SubElement(node, "node", name=child)
    ET.indent(node)
    return _DOCTYPE + ET.tostring(node, encoding="unicode") + "\n"
