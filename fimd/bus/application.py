"""org.freedesktop.Application: starting an image without a command line.

https://specifications.freedesktop.org/desktop-entry-spec/ ("D-Bus Activation"). The daemon's own
object stands for images in general, and opens them; each launcher's object is one image, and opens
files with it.
"""

import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from dbus_next.signature import Variant

from fimd.base.errors import InvalidArgumentError
from fimd.bus.declare import Call, Interface, method
from fimd.instances.launches import Launches, Origin

# ruff: noqa: N802 - D-Bus members are named in its own style

_MOST_FILES: Final = 1000


class ApplicationInterface(Interface):
    """An image, or with `image` empty whatever image it is told to open."""

    name = "org.freedesktop.Application"

    def __init__(self, launches: Launches, image: str = "") -> None:
        self._launches = launches
        self._image = image

    @method("a{sv} platform_data")
    async def Activate(self, _call: Call, platform_data: dict[str, Variant]) -> None:
        """Start the image."""
        if not self._image:
            raise InvalidArgumentError("fimd has no window of its own: open an image with it")
        await self._launches.launch(self._image, (), origin(platform_data))

    @method("as uris, a{sv} platform_data")
    async def Open(self, _call: Call, uris: list[str], platform_data: dict[str, Variant]) -> None:
        """Start the image with files; without an image of its own, start those that are named."""
        if len(uris) > _MOST_FILES:
            raise InvalidArgumentError(f"{len(uris)} files are too many: {_MOST_FILES} can be")
        words = [_file(uri) for uri in uris]
        if self._image:
            await self._launches.launch(self._image, words, origin(platform_data))
            return
        for path in words:
            await self._launches.launch(path, (), origin(platform_data))

    @method("s action_name, av parameter, a{sv} platform_data")
    async def ActivateAction(
        self,
        _call: Call,
        action_name: str,
        _parameter: list[Variant],
        _platform_data: dict[str, Variant],
    ) -> None:
        """Refuse: no launcher names an action."""
        raise InvalidArgumentError(f"there is no action {action_name!r} here: activate it instead")


def origin(platform_data: Mapping[str, Variant]) -> Origin:
    """Return what a desktop says of itself; what is of another type is none of it."""

    def text(name: str) -> str:
        variant = platform_data.get(name)
        return variant.value if variant is not None and variant.signature == "s" else ""

    return Origin(text("activation-token"), text("desktop-startup-id"))


def _file(uri: str) -> str:
    """Return the path of a file: URI. Raises InvalidArgumentError."""
    try:
        parts = urlsplit(uri)
        path = os.fsdecode(unquote_to_bytes(parts.path))
    except ValueError:
        parts, path = urlsplit(""), ""
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or "\0" in path:
        raise InvalidArgumentError(f"{uri!r} is no file of this machine (file:///…)")
    if not path.startswith("/"):
        raise InvalidArgumentError(f"{uri!r} is not an absolute path")
    return path
