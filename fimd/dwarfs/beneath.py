"""What lies beneath a directory, reached by descriptors: one name at a time and never by a link.

So nothing outside of the directory is ever touched, whatever somebody puts into the place of a part
of a path meanwhile; and a path may be longer than a system call takes.
"""

import os
from typing import Final, Self

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Beneath:
    """A directory, open at a descriptor that stays the caller's. A context manager.

    The directory of the last path is kept open, since most paths lie in it or below it. Paths are
    relative and hold no `..`; every method raises OSError where a part is missing or a link.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._last: tuple[bytes, int] = (b"", -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept open."""
        if self._last[1] >= 0:
            os.close(self._last[1])
        self._last = (b"", -1)

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """A descriptor (O_PATH) of the directory that a path lies in, and the last name.

        The descriptor is lent until the next call. The top itself is `.` in itself.
        """
        directory, _, name = path.rpartition(b"/")
        return self._directory(directory), name or b"."

    def open(self, path: bytes, flags: int, mode: int = 0o777) -> int:
        """Open a path; the descriptor is the caller's."""
        parent, name = self.parent(path)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)

    def _directory(self, path: bytes) -> int:
        if not path:
            return self._top
        known, last = self._last
        if path == known:
            return last
        if last >= 0 and path.startswith(known + b"/"):
            at, rest = os.dup(last), path[len(known) + 1 :]
        else:
            at, rest = os.dup(self._top), path
        try:
            for name in rest.split(b"/"):
                below = os.open(name, _STEP, dir_fd=at)
                os.close(at)
                at = below
        except BaseException:
            os.close(at)
            raise
        self.close()
        self._last = (path, at)
        return at
