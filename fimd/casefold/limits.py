"""What a program may find missing on the case-insensitive view."""

from typing import Final

from fimd.base.limits import Limit

VIEW_LIMITS: Final = (
    Limit("temporary files", "O_TMPFILE is refused (EOPNOTSUPP)", "pyfuse3 has no such request"),
    Limit(
        "directories of several layers",
        "over unionfs, renaming one is refused (EXDEV), and mv copies it",
        "unionfs would move a part of it and lose the rest",
    ),
)
