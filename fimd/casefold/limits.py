"""What a program may find missing on a view."""

from typing import Final

from fimd.base.limits import Limit

_NO_REQUEST: Final = "pyfuse3 has no such request"

VIEW_LIMITS: Final = (
    Limit("temporary files", "O_TMPFILE is refused (EOPNOTSUPP)", _NO_REQUEST),
    Limit(
        "allocated room",
        "fallocate is refused (EOPNOTSUPP), and posix_fallocate of the C library writes zeros",
        _NO_REQUEST,
    ),
    Limit(
        "looking for holes",
        "what a sparse file has not is taken for data that is zero (SEEK_DATA, SEEK_HOLE)",
        _NO_REQUEST,
    ),
    Limit("birth times", "files have none", _NO_REQUEST),
)
