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


def shows_secrets(source: str, home: str) -> bool:
    """Tell whether a path of the host is one of the secrets', or lies in one, or above it."""
    if not home.startswith("/"):
        return False
    real = os.path.realpath(source)
    places = (os.path.realpath(os.path.join(home, name)) for name in _SECRETS)
    return any(is_below(real, place) or is_below(place, real) for place in places)
