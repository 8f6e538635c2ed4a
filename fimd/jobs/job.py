"""One job: what it does, how far it is, and what came of it."""

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from fimd.base.errors import FimError
from fimd.mounts.process import Process

# How the phases share the whole, by what they take: packing is nearly everything.
_PHASES: Final = {
    "survey": (0.0, 0.05),
    "pack": (0.05, 0.9),
    "verify": (0.9, 0.97),
    "append": (0.97, 1.0),
}


class JobError(FimError):
    """What a worker said went wrong, under the name that it gave."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name  # type: ignore[misc]  # of this error alone


class JobState(StrEnum):
    """Where a job is in its life."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class Job:
    """A job. Its owner is Jobs; others look. Sizes are bytes, `rate` is bytes a second."""

    id: str
    operation: str
    subject: str
    """The file that it is about."""
    process: Process
    state: JobState = JobState.RUNNING
    phase: str = ""
    progress: float = 0.0
    """From 0 to 1; it never goes back."""
    bytes: int = 0
    total: int = 0
    rate: int = 0
    notes: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    error: FimError | None = None
    is_cancelled: bool = False
    _phase_began: float = 0.0

    def advance(self, phase: str, done: int, total: int) -> None:
        """Take note of how far it is."""
        now = time.monotonic()
        if phase != self.phase:
            self.phase, self._phase_began = phase, now
        start, end = _PHASES.get(phase, (0.0, 1.0))
        part = min(done / total, 1.0) if total > 0 else 0.0
        self.progress = max(self.progress, start + (end - start) * part)
        self.bytes, self.total = done, total
        self.rate = int(done / max(now - self._phase_began, 0.1))
