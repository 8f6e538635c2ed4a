"""What a program may find missing on an overlay."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """One thing that files elsewhere can do, what happens instead, and what it comes of."""

    name: str
    happens: str
    reason: str
    view_helps: bool = False
    """Whether it goes away with the case-insensitive view on top, which does that part itself."""
