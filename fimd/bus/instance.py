"""org.flatimage.Fim1.Instance: one running program."""

from dbus_next.signature import Variant

from fimd.base.places import image_id
from fimd.bus.declare import Call, Interface, method, prop
from fimd.bus.options import Options, encode_path
from fimd.bus.paths import image_path, layer_path
from fimd.instances.instance import Instance
from fimd.instances.instances import Instances

# ruff: noqa: N802 - D-Bus members are named in its own style


class InstanceInterface(Interface):
    """An instance's facts, and its end."""

    name = "org.flatimage.Fim1.Instance"

    def __init__(self, instance: Instance, instances: Instances) -> None:
        self._instance = instance
        self._instances = instances

    @prop("u", constant=True)
    def Pid(self) -> int:
        """The process that the instance is keyed by."""
        return self._instance.pid

    @prop("o", constant=True)
    def Image(self) -> str:
        """The image's object."""
        return image_path(image_id(self._instance.image))

    @prop("ay", constant=True)
    def ImagePath(self) -> bytes:
        """The image's file."""
        return encode_path(self._instance.image)

    @prop("ay", constant=True)
    def DataDir(self) -> bytes:
        """The data directory."""
        return encode_path(self._instance.data)

    @prop("ay", constant=True)
    def Root(self) -> bytes:
        """The tree that the program sees as /."""
        return encode_path(self._instance.stack.root)

    @prop("s", constant=True)
    def Mode(self) -> str:
        """One of exec, root, boot."""
        return self._instance.request.mode

    @prop("aay", constant=True)
    def Command(self) -> list[bytes]:
        """The words that the user gave."""
        return [encode_path(word) for word in self._instance.request.command]

    @prop("s", constant=True)
    def Overlay(self) -> str:
        """The overlay that is mounted."""
        return self._instance.stack.overlay_name

    @prop("s", constant=True)
    def Casefold(self) -> str:
        """One of off, on, preserve."""
        return self._instance.stack.spec.casefold

    @prop("ao", constant=True)
    def Layers(self) -> list[str]:
        """The layers' objects, base first."""
        return [layer_path(layer.id) for layer in self._instance.layers]

    @prop("t", constant=True)
    def StartedAt(self) -> int:
        """Microseconds since the epoch."""
        return int(self._instance.started_at * 1_000_000)

    @prop("s")
    def State(self) -> str:
        """One of running, ending."""
        return str(self._instance.state)

    @method("a{sv} options")
    async def Stop(self, _call: Call, options: dict[str, Variant]) -> None:
        """End the program: ask it, and insist after some seconds (option `timeout`, u)."""
        taken = Options(options)
        seconds = taken.take("timeout", "u", 10)
        taken.finish()
        await self._instances.stop(self._instance, min(seconds, 3600))
