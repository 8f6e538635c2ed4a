"""org.flatimage.Fim1.Image: one image that was run or opened."""

from dbus_next.signature import Variant

from fimd.bus.declare import Call, Interface, method, prop
from fimd.bus.options import Options, encode_path
from fimd.bus.paths import instance_path
from fimd.instances.images import Image, Images

# ruff: noqa: N802 - D-Bus members are named in its own style


class ImageInterface(Interface):
    """An image's facts and settings, as they were when it was last opened, run or set."""

    name = "org.flatimage.Fim1.Image"

    def __init__(self, image: Image, images: Images) -> None:
        self._image = image
        self._images = images

    @prop("ay", constant=True)
    def Path(self) -> bytes:
        """The image's real path."""
        return encode_path(self._image.facts.path)

    @prop("ay")
    def DataDir(self) -> bytes:
        """The data directory that it has by default."""
        return encode_path(self._image.data)

    @prop("s")
    def Overlay(self) -> str:
        """The overlay that the next instance gets: bwrap, overlayfs or unionfs."""
        return self._image.overlay

    @prop("s")
    def StoredOverlay(self) -> str:
        """The overlay that the image itself asks for, empty where it asks for none."""
        return self._image.facts.overlay or ""

    @prop("s")
    def Casefold(self) -> str:
        """One of off, on, preserve."""
        return self._image.facts.casefold

    @prop("a(aytt)")
    def Layers(self) -> list[list[object]]:
        """The layers of the chain and the managed ones, base first: file, offset, size."""
        return [[encode_path(layer.path), layer.offset, layer.size] for layer in self._image.layers]

    @prop("ao")
    def Instances(self) -> list[str]:
        """The running instances' objects."""
        return [instance_path(identifier) for identifier in sorted(self._image.instances)]

    @method("s overlay, a{sv} options")
    async def SetOverlay(self, _call: Call, overlay: str, options: dict[str, Variant]) -> None:
        """Store which overlay the image is to use."""
        Options(options).finish()
        await self._images.set_overlay(self._image, overlay)

    @method("s mode, a{sv} options")
    async def SetCasefold(self, _call: Call, mode: str, options: dict[str, Variant]) -> None:
        """Store whether names are to be found in any case: off, on or preserve."""
        Options(options).finish()
        await self._images.set_casefold(self._image, mode)
