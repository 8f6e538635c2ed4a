"""Letting go of what nobody uses, and leaving when told to."""

import asyncio
import os
from typing import Final

from fimd.base.paths import RuntimeTree
from fimd.instances.instances import Instances
from fimd.instances.leftovers import remove_leftovers
from fimd.layers.shared import Layers
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process
from fimd.mounts.steps import Step
from fimd.stacks.data import DataDirectory
from fimd.stacks.prepare import prune
from fimd.store import store

_SECONDS: Final = 600.0
"""Seconds that removing what is in the store may take."""


class Housekeeping:
    """What the daemon can be told to do with itself. `left` is set when it is to leave."""

    def __init__(
        self, tree: RuntimeTree, namespace: Namespace, instances: Instances, layers: Layers
    ) -> None:
        self._tree = tree
        self._namespace = namespace
        self._instances = instances
        self._layers = layers
        self.left = asyncio.Event()
        self.lent = 0
        """How many processes the namespace is lent to."""

    async def prune(self, data: str | None = None) -> tuple[int, int]:
        """Unmount the layers that nobody uses now, and remove what crashes have left.

        Unpacked layers that nobody uses are removed too, and what could not be removed from a data
        directory before, where one is given. Returns how many layers and how many directories those
        were. Raises FimError for what has to stay.
        """
        layers, left = await self._layers.retire_idle(), await remove_leftovers(self._tree)
        if not await asyncio.to_thread(store.is_empty):
            left += await self._prune_store()
        if data is not None and await asyncio.to_thread(os.path.isdir, data):
            directory = await asyncio.to_thread(DataDirectory.open, data)
            left += await asyncio.to_thread(prune, directory)
        return layers, left

    async def _prune_store(self) -> int:
        """Remove what nobody uses from the store; return how much that was."""
        arguments = {"path": await asyncio.to_thread(store.check_place)}
        step = Step("fimd.store.store:prune", "prune", _SECONDS, arguments)
        async with self._namespace.held():
            [removed] = await self._namespace.call(step, serves=("fim_job", "prune"))
        return int(removed)

    async def lend_namespace(self, pid: int) -> tuple[str, ...]:
        """Return the beginning of a command that is run in the namespace.

        That is there for as long as the process lives. Raises UnsupportedError, ProcessGoneError.
        """
        process = Process.watch(pid)
        try:
            await self._namespace.hold()
        except BaseException:
            process.close()
            raise
        self.lent += 1
        process.on_end(self._take_back)
        return self._namespace.join

    def _take_back(self) -> None:
        self.lent -= 1
        self._namespace.release()

    async def leave(self, *, seconds: float | None = None) -> None:
        """Take no new instances and let the daemon stop.

        With `seconds` the running ones are ended, and killed where they take longer than that.
        """
        self._instances.closed = True
        if seconds is not None:
            running = list(self._instances.running)
            await asyncio.gather(*(self._instances.stop(one, seconds) for one in running))
            await self._instances.drain()
        self.left.set()
