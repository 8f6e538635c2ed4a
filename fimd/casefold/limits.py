"""What a program may find missing on the case-insensitive view."""

from typing import Final

from fimd.base.limits import Limit

VIEW_LIMITS: Final = (
    Limit("temporary files", "O_TMPFILE is refused (EOPNOTSUPP)", "pyfuse3 has no such request"),
)
