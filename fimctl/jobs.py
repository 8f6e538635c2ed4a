"""Starting a job of the daemon and waiting for its end, with a bar that shows how far it is."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

from fimctl import wire
from fimctl.daemon import BUS_NAME, Daemon
from fimctl.errors import ClientError, DaemonError
from fimctl.progress import ProgressBar
from fimd.base.texts import printable

_JOBS: Final = "/org/flatimage/Fim1/job"
_LOOK: Final = 0.5
"""Seconds without a message after which the job is asked, and Ctrl-C is seen at the latest."""


def follow(
    daemon: Daemon, title: str, start: Callable[[], str], *, wait: bool = False
) -> dict[str, Any]:
    """Start a job and return its properties once it has succeeded. Ctrl-C cancels it.

    `start` returns the job's path; where it may `wait` for others, Ctrl-C ends the program, and
    the daemon sees that. Raises DaemonError with what went wrong.
    """
    daemon.connection.subscribe(BUS_NAME, _JOBS)
    cancelling = False
    with _Interrupt() as interrupt, ProgressBar(title) as bar:
        interrupt.at_once = wait
        job = start()
        interrupt.at_once = False
        while not _is_over(daemon, job, bar):
            if interrupt.came and not cancelling:
                cancelling = True
                daemon.call(f"{BUS_NAME}.Job", "Cancel", "a{sv}", ({},), path=job)
    facts = daemon.properties("Job", job)
    if cancelling and facts["State"] == "cancelled":
        raise KeyboardInterrupt
    name, message = facts["Error"]
    if facts["State"] != "succeeded":
        raise DaemonError(name, message)
    return facts


class _Interrupt:
    """Ctrl-C as a fact to look at between two messages of the bus.

    As an exception it would come in the middle of one, and what follows could not be read any more.
    The second Ctrl-C is an exception: by then nothing more is read.
    """

    def __init__(self) -> None:
        self.came = False
        self.at_once = False
        """Whether it is an exception from the first time on: nothing more will be read then."""

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.came or self.at_once:
            raise KeyboardInterrupt
        self.came = True


def _is_over(daemon: Daemon, job: str, bar: ProgressBar) -> bool:
    """Take one signal, or ask where none comes."""
    try:
        message = daemon.connection.receive(_LOOK)
    except TimeoutError:
        return bool(daemon.properties("Job", job)["State"] != "running")
    except (OSError, ValueError) as error:
        raise ClientError(f"fimd can't be heard any more ({error}): it goes on with it") from error
    fields = message.fields
    if fields.get(wire.PATH) != job:
        return False
    if fields.get(wire.MEMBER) == "PropertiesChanged":
        facts = {key: value[1] for key, value in message.body[1].items()}
        if "Progress" in facts:
            bar.show(facts["Progress"], facts["Bytes"], facts["Rate"])
    return bool(fields.get(wire.MEMBER) == "Completed")


def print_notes(facts: dict[str, Any], write: Callable[[str], None] | None = None) -> None:
    """Print a job's notes on standard error, or by `write`."""
    for note in facts["Notes"]:
        if write is not None:
            write(note)
        else:
            print(f"fimctl: {printable(note)}", file=sys.stderr)
