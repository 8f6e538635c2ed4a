"""The program of an instance, by the process that the instance is keyed by."""

from pathlib import Path

_STEPS = 3
"""The process waits for bubblewrap, whose child is the first process inside: its child is it."""


def program_of(pid: int) -> int | None:
    """Return the program's process, None where it is not there yet."""
    for _ in range(_STEPS):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return None
        pid = int(children[0])
    return pid


def named(pid: int, name: str) -> int | None:
    """Return the program's process once it is the one of that name."""
    program = program_of(pid)
    if program is None or Path(f"/proc/{program}/comm").read_text() != f"{name}\n":
        return None
    return program
