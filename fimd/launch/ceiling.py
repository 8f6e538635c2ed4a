"""What an image can't give itself: a share of the host that holds its user's secrets.

Who executes an image's file has let it do what it likes already, and it gets what it asks for. One
that is only to be run (by `fimctl run`, a desktop or another client) has bindings of its own as
well, which nobody was asked about.
"""

import os
from typing import Final

from fimd.base.places import is_below

_SECRETS: Final = (
    *(".ssh", ".gnupg", ".local/share/keyrings"),
    *(".config/fimd", ".local/share/fimd", ".local/state/fimd"),
)
"""Places in a home: keys, and what fimd keeps there."""


def secrets(home: str) -> tuple[str, ...]:
    """Return the secrets' places in a home, without links."""
    if not home.startswith("/"):
        return ()
    return tuple(os.path.realpath(os.path.join(home, name)) for name in _SECRETS)


def shows(real: str, places: tuple[str, ...]) -> bool:
    """Tell whether a path without links is one of these places, or lies in one, or above it."""
    return any(is_below(real, place) or is_below(place, real) for place in places)
