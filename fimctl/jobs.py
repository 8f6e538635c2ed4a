"""Starting a job of the daemon and waiting for its end, with a bar that shows how far it is."""

import sys
from collections.abc import Callable
from typing import Any, Final

from jeepney import HeaderFields, MatchRule, message_bus

from fimctl.daemon import BUS_NAME, Daemon
from fimctl.errors import ClientError, DaemonError
from fimctl.progress import ProgressBar

_JOBS: Final = "/org/flatimage/Fim1/job"
_LOOK: Final = 1.0
"""Seconds without a signal after which the job is asked."""


def follow(daemon: Daemon, title: str, start: Callable[[], str]) -> dict[str, Any]:
    """Start a job and return its properties once it has succeeded. Ctrl-C cancels it.

    `start` returns the job's path. Raises DaemonError with what went wrong.
    """
    rule = MatchRule(type="signal", sender=BUS_NAME, path_namespace=_JOBS)
    daemon.connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=10.0)
    job = start()
    interrupted = False
    with ProgressBar(title) as bar:
        while True:
            try:
                if _is_over(daemon, job, bar):
                    break
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                daemon.call(f"{BUS_NAME}.Job", "Cancel", "a{sv}", ({},), path=job)
    facts = daemon.properties("Job", job)
    if interrupted and facts["State"] == "cancelled":
        raise KeyboardInterrupt
    name, message = facts["Error"]
    if facts["State"] != "succeeded":
        raise DaemonError(name, message)
    return facts


def _is_over(daemon: Daemon, job: str, bar: ProgressBar) -> bool:
    """Take one signal, or ask where none comes."""
    try:
        message = daemon.connection.receive(timeout=_LOOK)
    except TimeoutError:
        return bool(daemon.properties("Job", job)["State"] != "running")
    except (OSError, EOFError) as error:
        raise ClientError(f"the session bus hung up ({error}): fimd goes on with it") from error
    fields = message.header.fields
    if fields.get(HeaderFields.path) != job:
        return False
    if fields.get(HeaderFields.member) == "PropertiesChanged":
        facts = {key: value[1] for key, value in message.body[1].items()}
        if "Progress" in facts:
            bar.show(facts["Progress"], facts["Bytes"], facts["Rate"])
    return bool(fields.get(HeaderFields.member) == "Completed")


def print_notes(facts: dict[str, Any], write: Callable[[str], None] | None = None) -> None:
    """Print a job's notes on standard error, or by `write`."""
    for note in facts["Notes"]:
        if write is not None:
            write(note)
        else:
            print(f"fimctl: {note}", file=sys.stderr)
