"""How a view finds names, and stores new ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fimd.casefold.folding import fold, lower


@dataclass(frozen=True, slots=True)
class Naming:
    """`fold` is what all spellings of one name have in common, `stored` the one that is kept."""

    fold: Callable[[bytes], bytes]
    stored: Callable[[bytes], bytes]

    @property
    def is_exact(self) -> bool:
        """Whether each spelling is a name of its own."""
        return self.fold is bytes


NAMINGS: Final = {
    "on": Naming(fold, lower),
    "preserve": Naming(fold, bytes),
    "exact": Naming(bytes, bytes),
}
"""What is said for it: names in lower case, as they were given, or told apart by case as well."""
