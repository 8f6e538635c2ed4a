"""What long work on layers is given, to tell how far it is and to be stopped."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.write import Progress
from fimd.dwarfs.write.entries import printable

_NAMED: Final = 20


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Work:
    """Where long work reports to.

    Attributes:
        progress: told the phase, the bytes done in it and the bytes in all.
        note: told a sentence for the user.
        cancelled: asked now and then whether to stop.
    """

    progress: Callable[[str, int, int], None] = _ignore
    note: Callable[[str], None] = _ignore
    cancelled: Callable[[], bool] = lambda: False

    def packing(self, state: Progress) -> None:
        """Take the progress of the writer."""
        self.progress(state.phase, state.bytes_done, state.bytes_total)

    def phase(self, name: str) -> Callable[[int, int], None]:
        """Return what takes the progress of one phase."""
        return lambda done, total: self.progress(name, done, total)

    def unerased(self, paths: Sequence[str]) -> None:
        """Tell of what can't be removed: each file, or how many where they are too many."""
        for path in paths[:_NAMED]:
            self.note(f"Could not remove file {printable(os.fsencode(path))}: it is another user's")
        if len(paths) > _NAMED:
            self.note(f"Could not remove {len(paths) - _NAMED} more files of other users")

    def check(self) -> None:
        """Raise CancelledError where the work is to stop."""
        if self.cancelled():
            raise CancelledError("cancelled")
