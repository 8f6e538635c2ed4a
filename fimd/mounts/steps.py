"""Work in the user's namespace as a list of steps, one after the other in one process.

A process for each costs more than most of them do. What a step returns, where that is a dictionary,
is among the arguments of the next, in place of its own. One that imprisons itself
(fimd.mounts.jail) and is not the last gets a fork of its own, so that it is alone in its jail.
Where each of them leaves the process as it was, that can take others afterwards.
"""

import json
import os
import select
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fimd.mounts.jail import answer, answer_of_fork

_COMM: Final = "/proc/self/comm"

Work = Callable[[dict[str, Any], list[int]], Any]
"""A step's function: it takes arguments and files, and returns what JSON can hold."""


@dataclass(frozen=True)
class Step:
    """A function that is called in the namespace, and the time that it has."""

    function: str
    """`module:name` of a Work."""
    name: str
    """What the process goes by meanwhile, and what messages call it."""
    seconds: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[int, ...] = ()
    apart: bool = False
    """Whether it imprisons itself."""
    again: bool = False
    """Whether it leaves the process as it was, apart from the working directory."""

    def words(self) -> dict[str, Any]:
        """Return what is sent of it; the files go along by themselves."""
        return {
            "function": self.function,
            "name": self.name,
            "arguments": dict(self.arguments),
            "files": len(self.files),
            "apart": self.apart,
            "again": self.again,
        }


@dataclass
class Errand:
    """A step that whoever has others done may take along as the last: it then has its result."""

    step: Step
    result: Any = None


def go_by(name: str) -> None:
    """Have a name of this process's own, as ps shows it."""
    with open(_COMM, "w") as comm:
        comm.write(name)


def leave_it_as_it_was(steps: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a process can do more after these steps, as they were sent."""
    last = len(steps) - 1
    return all(step["again"] or (step["apart"] and n < last) for n, step in enumerate(steps))


def take(steps: Sequence[dict[str, Any]], files: list[int], report: int) -> bool:
    """Take the steps in this process; tell whether none has failed.

    Says on `report`, line by line, what each returns, or what went wrong with the last one taken.
    """
    passed: Mapping[str, Any] = {}
    with os.fdopen(report, "wb", closefd=False) as file:
        for number, step in enumerate(steps):
            given, files = files[: step["files"]], files[step["files"] :]
            go_by(step["name"])
            arguments = {**step["arguments"], **passed}
            called = answer_of_fork if step["apart"] and number + 1 < len(steps) else answer
            text = called(step["function"], arguments, given)
            if not text:
                return False
            file.write(text + b"\n")
            file.flush()
            said = json.loads(text)
            if "error" in said:
                return False
            passed = said["result"] if isinstance(said["result"], dict) else {}
    return True


def wait_until_read(report: int) -> None:
    """Wait until who reads what was said on a pipe has closed it, and close it."""
    closed = select.poll()
    closed.register(report, 0)  # it is told as an error, whatever is asked for
    closed.poll()
    os.close(report)
