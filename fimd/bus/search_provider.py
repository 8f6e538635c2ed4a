"""org.gnome.Shell.SearchProvider2: the user's images in the search of GNOME's overview.

https://developer.gnome.org/documentation/tutorials/search-provider.html
"""

import os
from typing import Any, Final
from urllib.parse import quote

from dbus_next.signature import Variant

from fimd.base.errors import InvalidArgumentError, NotFoundError
from fimd.bus.declare import Call, Interface, method
from fimd.bus.options import plain_text
from fimd.images.catalogue import Catalogue, Entry
from fimd.instances.launches import Launches, Origin

# ruff: noqa: N802 - D-Bus members are named in its own style

_MOST: Final = 50


class SearchProviderInterface(Interface):
    """A result is an image, by its identifier."""

    name = "org.gnome.Shell.SearchProvider2"

    def __init__(self, catalogue: Catalogue, launches: Launches) -> None:
        self._catalogue = catalogue
        self._launches = launches

    @method("as terms", "as results")
    async def GetInitialResultSet(self, _call: Call, terms: list[str]) -> list[object]:
        """Return the images that have every term in their name, the likeliest first."""
        return [[entry.id for entry in (await self._catalogue.search(terms))[:_MOST]]]

    @method("as previous_results, as terms", "as results")
    async def GetSubsearchResultSet(
        self, _call: Call, previous_results: list[str], terms: list[str]
    ) -> list[object]:
        """Return those of a search's results that further terms leave."""
        previous = set(previous_results)
        found = await self._catalogue.search(terms)
        return [[entry.id for entry in found if entry.id in previous]]

    @method("as identifiers", "aa{sv} metas")
    async def GetResultMetas(self, _call: Call, identifiers: list[str]) -> list[object]:
        """Return name, icon and description of results; what is gone is left out."""
        found = (self._catalogue.get(identifier) for identifier in identifiers)
        return [[self._meta(entry) for entry in found if entry is not None]]

    @method("s identifier, as terms, u timestamp")
    async def ActivateResult(
        self, _call: Call, identifier: str, _terms: list[str], timestamp: int
    ) -> None:
        """Start an image."""
        entry = self._catalogue.get(identifier)
        if entry is None:
            raise NotFoundError(f"there is no image {identifier!r} any more")
        await self._launches.launch(entry.path, (), _at(timestamp))

    @method("as terms, u timestamp")
    async def LaunchSearch(self, _call: Call, terms: list[str], timestamp: int) -> None:
        """Start the image that the terms leave, for want of a window that shows several."""
        found = await self._catalogue.search(terms)
        if len(found) != 1:
            raise InvalidArgumentError(f"{len(found)} images are called so: name one of them")
        await self._launches.launch(found[0].path, (), _at(timestamp))

    def _meta(self, entry: Entry) -> dict[str, Variant]:
        icon = self._catalogue.icon(entry)
        return {
            "id": Variant("s", entry.id),
            "name": Variant("s", plain_text(entry.name)),
            "description": Variant("s", plain_text(self._catalogue.describe(entry))),
            "icon": Variant("(sv)", _icon(icon)),
        }


def _icon(path: str) -> list[Any]:
    """Return an icon as g_icon_serialize of GLib does."""
    if not path:
        return ["themed", Variant("as", ["flatimage", "application-x-executable"])]
    return ["file", Variant("s", f"file://{quote(os.fsencode(path))}")]


def _at(timestamp: int) -> Origin:
    """Return what lets a window get the focus by the time of the user's click.

    https://specifications.freedesktop.org/startup-notification-spec/: an identifier's last part.
    """
    return Origin(startup_id=f"fimd_TIME{timestamp}" if timestamp else "")
