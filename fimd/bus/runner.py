"""org.kde.krunner1: the user's images in KRunner, and in what else of Plasma searches by it.

https://api.kde.org/krunner-index.html (AbstractRunner over D-Bus)
"""

from typing import Final

from dbus_next.signature import Variant

from fimd.base.errors import InvalidArgumentError, NotFoundError
from fimd.bus.declare import Call, Interface, method
from fimd.bus.options import plain_text
from fimd.images.catalogue import Catalogue, Entry
from fimd.instances.launches import Launches, Origin

# ruff: noqa: N802 - D-Bus members are named in its own style

_MOST: Final = 10
_EXACT, _POSSIBLE = 100, 30
"""KRunner's QueryMatch::Type, a category's weight since Plasma 6."""
_LETTERS: Final = 2


class RunnerInterface(Interface):
    """A match is an image, by its identifier."""

    name = "org.kde.krunner1"

    def __init__(self, catalogue: Catalogue, launches: Launches) -> None:
        self._catalogue = catalogue
        self._launches = launches
        self._token = ""

    @method("s query", "a(sssida{sv}) matches")
    async def Match(self, _call: Call, query: str) -> list[object]:
        """Return the images that have every word in their name, the likeliest first."""
        words = query.split()
        if sum(map(len, words)) < _LETTERS:
            return [[]]
        found = (await self._catalogue.search(words))[:_MOST]
        return [[self._match(entry, query, place) for place, entry in enumerate(found)]]

    @method("", "a(sss) actions")
    async def Actions(self, _call: Call) -> list[object]:
        """Return what else can be done with a match: nothing but starting it."""
        return [[]]

    @method("s match_id, s action_id")
    async def Run(self, _call: Call, match_id: str, action_id: str) -> None:
        """Start an image."""
        token, self._token = self._token, ""
        entry = self._catalogue.get(match_id)
        if entry is None:
            raise NotFoundError(f"there is no image {match_id!r} any more")
        if action_id:
            raise InvalidArgumentError(f"there is no action {action_id!r} here")
        await self._launches.launch(entry.path, (), Origin(token))

    @method("s token")
    async def SetActivationToken(self, _call: Call, token: str) -> None:
        """Remember what lets the next program's window have the focus."""
        self._token = token

    @method("", "a{sv} config")
    async def Config(self, _call: Call) -> list[object]:
        """Return what keeps KRunner from asking in vain."""
        return [{"MinLetterCount": Variant("i", _LETTERS)}]

    @method()
    async def Teardown(self, _call: Call) -> None:
        """Forget the token: the search is over."""
        self._token = ""

    def _match(self, entry: Entry, query: str, place: int) -> list[object]:
        exact = entry.name.casefold() == query.strip().casefold()
        return [
            entry.id,
            plain_text(entry.name),
            plain_text(self._catalogue.icon(entry)) or "flatimage",
            _EXACT if exact else _POSSIBLE,
            1.0 if exact else 0.9 - place * 0.8 / _MOST,
            {
                "subtext": Variant("s", plain_text(self._catalogue.describe(entry))),
                "category": Variant("s", "FlatImage"),
            },
        ]
