"""A writable stack: what instances must agree on to share it, and its record."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from fimd.mounts.process import Process
from fimd.overlays import KNOWN
from fimd.overlays.stack import Overlay, StackDirectory
from fimd.stacks.data import DataDirectory

KIND: Final = "stacks"
"""What its records are among those of the runtime tree."""


@dataclass(frozen=True)
class StackSpec:
    """What instances must agree on to share a data directory."""

    data: DataDirectory
    layers: tuple[str, ...]
    """Identifiers of the layers, base first."""
    overlay: str
    casefold: str

    @property
    def id(self) -> str:
        """16 hexadecimal digits that stand for the upper directory."""
        upper = f"{self.data.device}:{self.data.inode}"
        return hashlib.blake2b(upper.encode(), digest_size=8).hexdigest()


@dataclass
class Stack:
    """A mounted stack. Its owner is Stacks; others look."""

    spec: StackSpec
    directory: StackDirectory
    overlay: Overlay
    overlay_name: str
    """The backend that is mounted: another than the spec's where that was refused."""
    view: Process | None
    warnings: tuple[str, ...]
    users: set[int] = field(default_factory=set)
    failed: bool = False
    """Whether one of its processes died under its users."""
    holds_namespace: bool = True
    """Whether the namespace is kept for it; not if that was gone before it was adopted."""

    @property
    def root(self) -> str:
        """The tree that an instance sees as /."""
        return self._view_point if self.view is not None else self.overlay.root

    @property
    def mounts(self) -> dict[str, Process]:
        """The mount points of what is served by processes, and these."""
        served = {self.overlay.root: self.overlay.process, self._view_point: self.view}
        return {point: process for point, process in served.items() if process is not None}

    @property
    def _view_point(self) -> str:
        return os.path.join(self.directory.path, "view")


def record(stack: Stack) -> dict[str, Any]:
    """Return what a later daemon needs to take the stack over."""
    return {
        "spec": asdict(stack.spec),
        "overlay": stack.overlay_name,
        "overlay_process": _identify(stack.overlay.process),
        "view_process": _identify(stack.view),
    }


def recorded(stack_id: str, path: str, facts: Mapping[str, Any] | None) -> Stack | None:
    """Return the stack that a record describes, None where there is none that makes sense.

    Where it is mounted follows from its identifier.
    """
    try:
        if facts is None:
            return None
        written = facts["spec"]
        data = DataDirectory(**written["data"])
        spec = StackSpec(data, tuple(written["layers"]), written["overlay"], written["casefold"])
        name = facts["overlay"]
        if spec.id != stack_id or name not in KNOWN:
            return None
        upper = (data.device, data.inode)
        directory = StackDirectory(spec.id, path, len(set(spec.layers)), upper)
        overlay = Overlay(_identified(facts["overlay_process"]), directory.merged)
        return Stack(spec, directory, overlay, name, _identified(facts["view_process"]), ())
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _identify(process: Process | None) -> list[int] | None:
    return None if process is None else [process.pid, process.started]


def _identified(facts: list[int] | None) -> Process | None:
    """Return a recorded process; one that has ended where it has."""
    if facts is None:
        return None
    pid, started = facts
    return Process.known(pid, started) or Process(pid, None)
