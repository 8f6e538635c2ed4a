"""What long work on layers is given, to tell how far it is and to be stopped."""

from collections.abc import Callable
from dataclasses import dataclass

from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.write import Progress


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

    def check(self) -> None:
        """Raise CancelledError where the work is to stop."""
        if self.cancelled():
            raise CancelledError("cancelled")
