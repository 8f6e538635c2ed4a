"""org.flatimage.Fim1.Layer: one mounted layer."""

from fimd.bus.declare import Interface, prop
from fimd.bus.options import encode_path
from fimd.layers.mounted import Layer

# ruff: noqa: N802 - D-Bus members are named in its own style


class LayerInterface(Interface):
    """A layer's facts."""

    name = "org.flatimage.Fim1.Layer"

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    @prop("ay")
    def Source(self) -> bytes:
        """The file that holds the layer, where it was last found."""
        return encode_path(self._layer.source.path)

    @prop("t")
    def Offset(self) -> int:
        """The layer's first byte in the file."""
        return self._layer.source.offset

    @prop("t", constant=True)
    def Size(self) -> int:
        """The layer's size in bytes."""
        return self._layer.source.size

    @prop("ay", constant=True)
    def MountPoint(self) -> bytes:
        """Where the layer is mounted."""
        return encode_path(self._layer.mount_point)

    @prop("s", constant=True)
    def Engine(self) -> str:
        """Which DwarFS serves it: embedded or external."""
        return self._layer.engine

    @prop("u")
    def References(self) -> int:
        """How many instances use the layer."""
        return self._layer.references

    @prop("s")
    def State(self) -> str:
        """One of mounting, mounted, idle, unmounting, failed."""
        return str(self._layer.state)
