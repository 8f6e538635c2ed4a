"""FIM_COMPRESSION_LEVEL, as FlatImage reads it."""

import os
import re
import sys
from typing import Final

DEFAULT: Final = 7
"""FlatImage's, for layers and commits."""
QUICK: Final = 3
"""What a person waits for: level 7 takes twenty times as long to pack a whole root filesystem."""


def compression_level(default: int = DEFAULT) -> int:
    """Return the level: 0 to 9. What is out of range is brought into it, with a word.

    As in FlatImage leading digits count, and what has none is the default.
    """
    given = os.environ.get("FIM_COMPRESSION_LEVEL", "")
    if not given:
        return default
    match = re.match(r"\s*([+-]?[0-9]{1,18})", given)
    level = min(max(int(match[1]), 0), 9) if match else default
    if given != str(level):
        print(
            f"fimctl: FIM_COMPRESSION_LEVEL is {given!r}, which is none of 0 to 9: using {level}",
            file=sys.stderr,
        )
    return level
