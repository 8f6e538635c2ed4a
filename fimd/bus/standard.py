"""The standard interfaces, as introspection shows them; the object server answers their calls."""

from dbus_next.signature import Variant

from fimd.bus.declare import Call, Interface, method, signal

# ruff: noqa: D102, N802 - the D-Bus specification documents and names these


class Introspectable(Interface):
    """org.freedesktop.DBus.Introspectable."""

    name = "org.freedesktop.DBus.Introspectable"

    @method(outputs="s xml_data")
    async def Introspect(self, call: Call) -> None: ...


class Peer(Interface):
    """org.freedesktop.DBus.Peer."""

    name = "org.freedesktop.DBus.Peer"

    @method()
    async def Ping(self, call: Call) -> None: ...

    @method(outputs="s machine_uuid")
    async def GetMachineId(self, call: Call) -> None: ...


class Properties(Interface):
    """org.freedesktop.DBus.Properties."""

    name = "org.freedesktop.DBus.Properties"

    @method("s interface_name, s property_name", "v value")
    async def Get(self, call: Call, interface: str, name: str) -> None: ...

    @method("s interface_name", "a{sv} props")
    async def GetAll(self, call: Call, interface: str) -> None: ...

    @method("s interface_name, s property_name, v value")
    async def Set(self, call: Call, interface: str, name: str, value: Variant) -> None: ...

    @signal("s interface_name, a{sv} changed_properties, as invalidated_properties")
    def PropertiesChanged(self) -> None: ...


class ObjectManager(Interface):
    """org.freedesktop.DBus.ObjectManager."""

    name = "org.freedesktop.DBus.ObjectManager"

    @method(outputs="a{oa{sa{sv}}} object_paths_interfaces_and_properties")
    async def GetManagedObjects(self, call: Call) -> None: ...

    @signal("o object_path, a{sa{sv}} interfaces_and_properties")
    def InterfacesAdded(self) -> None: ...

    @signal("o object_path, as interfaces")
    def InterfacesRemoved(self) -> None: ...
