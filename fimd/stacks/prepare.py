"""A data directory made ready for its overlay: all at once, by one process in a jail.

What an interrupted commit left is cleaned up, a fresh directory is made for the overlay to work in,
and the upper is brought to the form that the overlay reads.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from fimd.base.errors import FimError
from fimd.layers.source import LayerSource
from fimd.mounts.jail import call_apart
from fimd.mounts.namespace import Namespace
from fimd.mounts.steps import Step
from fimd.overlays import KNOWN
from fimd.overlays.stack import StackDirectory
from fimd.stacks.data import DataDirectory
from fimd.trees.hidden import hidden_directories
from fimd.trees.whiteouts import whiteouts

JAILED: Final = "fimd.stacks.jailed"
"""The module of which the template forks what works in a jail."""
_SECONDS: Final = 610.0
"""When it is given up: a little after it gives up itself."""


@dataclass(frozen=True)
class Prepared:
    """A data directory that an overlay can be mounted over.

    Attributes:
        notes: sentences about what was cleaned up.
        work: the device and the inode of the overlay's own directory in work/.
        ghosts: names in lower layers that the overlay must not see, by the number of the layer that
            hides them; of an overlay that would see them.
    """

    notes: tuple[str, ...]
    work: tuple[int, int]
    ghosts: Mapping[int, frozenset[bytes]]


@contextmanager
def preparing(
    data: DataDirectory, stack: StackDirectory, overlay: str, *, casefold: bool = False
) -> Iterator[Step]:
    """Yield the step that makes a data directory ready. For who has it alone.

    `casefold` says that a case-insensitive view is to lie over it: what that hides is among the
    notes. Blocks. Raises BadLayerError, UnsupportedError; the step raises DataDirectoryError,
    BusyError during a commit, and other FimErrors.
    """
    facts = _facts(overlay, stack.sources)
    arguments = {
        "data": asdict(data),
        "work": stack.id,
        "overlay": overlay,
        "casefold": casefold,
    }
    given = _in_memory(facts)
    try:
        yield Step(f"{JAILED}:prepare", "prepare", _SECONDS, arguments, (given,), apart=True)
    finally:
        os.close(given)


def prepared(said: dict[str, Any]) -> Prepared:
    """Return what the step has said."""
    device, inode = said["work"]
    found = {
        int(number): frozenset(map(os.fsencode, paths)) for number, paths in said["ghosts"].items()
    }
    return Prepared(tuple(said["notes"]), (device, inode), found)


async def discard(namespace: Namespace, data: DataDirectory, stack_id: str) -> None:
    """Remove what an overlay has left in work/. Raises FimError."""
    arguments = {"data": asdict(data), "work": stack_id}
    step = Step(f"{JAILED}:discard", "discard", _SECONDS, arguments)
    await namespace.call(step, serves=("fim_stack", stack_id))


def prune(data: DataDirectory) -> int:
    """Remove what is kept as lost in a data directory; return how much that was.

    Blocks, as `call_apart`. Raises FimError for what has to stay.
    """
    removed, kept = call_apart(f"{JAILED}:prune", {"data": asdict(data)})
    if kept:
        raise FimError(
            f"{', '.join(kept)} can't be removed, since it is another user's or something is "
            "mounted there: remove it as root"
        )
    return int(removed)


def _in_memory(facts: dict[str, Any]) -> int:
    """Return a file with facts about layers: they may be more than a message holds."""
    descriptor = os.memfd_create("layers", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(facts).encode())
    return descriptor


def _facts(overlay: str, sources: tuple[LayerSource, ...]) -> dict[str, Any]:
    """Return what layers say by themselves, which this process remembers for the next start.

    Raises BadLayerError, UnsupportedError.
    """
    backend = KNOWN[overlay]
    marks = backend.marks()
    hidden = hidden_directories(sources) if backend.sees_ghosts else ()
    return {
        "layers": [(source.path, source.offset, source.size) for source in sources],
        "marks": None if marks is None else os.fsdecode(marks),
        "by_files": backend.takes_files,
        "is_copy": backend.is_copy,
        # a unionfs copies devices up from layers, where it shows them
        "copies": marks is not None and any(map(whiteouts, sources)),
        "hidden": [list(map(os.fsdecode, paths)) for paths in hidden] if any(hidden) else None,
    }
