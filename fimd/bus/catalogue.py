"""org.flatimage.Fim1.Catalogue: the images that launchers show."""

from dbus_next.signature import Variant

from fimd.base.errors import NotFoundError
from fimd.bus.declare import Call, Interface, method
from fimd.bus.options import Options, decode_path, encode_path, plain_text
from fimd.bus.paths import launcher_name
from fimd.images.catalogue import Catalogue, Entry

# ruff: noqa: N802 - D-Bus members are named in its own style


class CatalogueInterface(Interface):
    """What was registered or run: what GNOME's and Plasma's searches find."""

    name = "org.flatimage.Fim1.Catalogue"

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @method("a{sv} options", "aa{sv} images")
    async def ListImages(self, _call: Call, options: dict[str, Variant]) -> list[object]:
        """Return the images that are there, the likeliest first.

        Each has: Path ay, Name s, Icon ay (a file, or empty), Registered b, Running u, Uses u,
        LastUsed t (microseconds since the epoch).
        """
        Options(options).finish()
        return [[self._facts(entry) for entry in await self._catalogue.search(())]]

    @method("ay image, a{sv} options", "s launcher")
    async def Register(
        self, _call: Call, image: bytes, options: dict[str, Variant]
    ) -> list[object]:
        """Remember that an image has a launcher, and answer on the launcher's bus name."""
        Options(options).finish()
        entry = await self._catalogue.register(decode_path(image))
        return [launcher_name(entry.id)]

    @method("ay image, a{sv} options")
    async def Forget(self, _call: Call, image: bytes, options: dict[str, Variant]) -> None:
        """Forget an image; it comes back when it is run, or registered."""
        given = Options(options)
        keep_uses = given.take("keep_uses", "b", default=False)
        given.finish()
        path = decode_path(image)
        if not await self._catalogue.forget(path, keep_uses=keep_uses):
            raise NotFoundError(f"{path} is not among the images that were run or registered")

    def _facts(self, entry: Entry) -> dict[str, Variant]:
        return {
            "Path": Variant("ay", encode_path(entry.path)),
            "Name": Variant("s", plain_text(entry.name)),
            "Icon": Variant("ay", encode_path(self._catalogue.icon(entry))),
            "Registered": Variant("b", entry.registered),
            "Running": Variant("u", self._catalogue.running(entry)),
            "Uses": Variant("u", entry.uses),
            "LastUsed": Variant("t", int(entry.last_used * 1_000_000)),
        }
