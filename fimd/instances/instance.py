"""A running instance, and the record by which a later daemon finds it."""

import asyncio
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from fimd.base import records
from fimd.images.image import ImageFacts
from fimd.instances.inside import Inside
from fimd.launch.request import StartRequest
from fimd.layers.mounted import Layer
from fimd.mounts.process import Process
from fimd.stacks.stack import Stack

KIND: Final = "instance"
"""What its records are among those of the runtime tree."""


class InstanceState(StrEnum):
    """Where an instance is in its life."""

    RUNNING = "running"
    BACKGROUND = "background"  # its program has ended, and has left others that go on
    FAILED = "failed"  # it lives, but a filesystem under it has died
    ENDING = "ending"


@dataclass
class Instance:
    """A running instance. Its owner is Instances; others look."""

    process: Process
    process_started: int
    """Clock ticks since boot: with the PID a name for good."""
    request: StartRequest
    facts: ImageFacts
    data: str
    stack: Stack
    layers: tuple[Layer, ...]
    directory: str
    started_at: float
    """Seconds since the epoch."""
    own_processes: bool = True
    """Whether its programs have a process namespace of their own, and end with its first one."""
    state: InstanceState = InstanceState.RUNNING
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing of it runs any more."""

    @property
    def pid(self) -> int:
        """The process that the instance is keyed by."""
        return self.process.pid

    @property
    def inside(self) -> Inside:
        """What runs inside of it."""
        return Inside(self.directory)

    async def has_ended(self, seconds: float) -> bool:
        """Wait until nothing of it runs any more, at most that long; tell whether it is so."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            return False
        return True

    @property
    def image(self) -> str:
        """The image's real path."""
        return self.facts.path

    @property
    def id(self) -> str:
        """The instance's identifier: its PID, of fixed width."""
        return instance_id(self.pid)


def instance_id(pid: int) -> str:
    """Return the identifier of the instance that is keyed by a process."""
    return f"{pid:010d}"


def describe(instance: Instance, path: str) -> None:
    """Write what a later daemon needs to adopt or remove the instance, and links to its mounts.

    The layers' links are those of the stack: one for each would be most of what a start costs.
    """
    os.symlink(instance.stack.directory.links, os.path.join(instance.directory, "layers"))
    os.symlink(instance.stack.root, os.path.join(instance.directory, "mount"))
    facts = {
        "pid": instance.pid,
        "process_started": instance.process_started,
        "started_at": instance.started_at,
        "image": instance.image,
        "data": instance.data,
        "mode": instance.request.mode,
        "root": instance.request.root,
        "command": instance.request.command,
        "stack": instance.stack.spec.id,
        "own_processes": instance.own_processes,
        "layers": [layer.id for layer in instance.layers],
    }
    records.write(path, facts)
