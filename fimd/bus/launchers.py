"""Answers on the bus names of launchers: one for each image that the user has registered."""

import asyncio

from fimd.base.observe import Event
from fimd.bus.application import ApplicationInterface
from fimd.bus.buses import Buses
from fimd.bus.paths import launcher_name, launcher_path
from fimd.bus.server import ObjectServer
from fimd.images.catalogue import Catalogue, Entry
from fimd.instances.launches import Launches


class Launchers:
    """Keeps names and objects in step with the catalogue."""

    def __init__(self, server: ObjectServer, buses: Buses, launches: Launches) -> None:
        self._server = server
        self._buses = buses
        self._launches = launches
        self._names: set[str] = set()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, catalogue: Catalogue) -> None:
        """Take the names of all registered images, now and as they come, and let go of others.

        The present ones are there when this returns: the bus may have started the daemon for one.
        """
        catalogue.entries.subscribe(self._on_entry)
        await self.settle()

    async def settle(self) -> None:
        """Wait until what was begun is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_entry(self, event: Event, key: str, entry: Entry) -> None:
        wanted = event is not Event.REMOVED and entry.registered
        if wanted == (key in self._names):
            return
        if wanted:
            self._names.add(key)
            application = ApplicationInterface(self._launches, entry.path)
            self._server.export(launcher_path(key), application)
        else:
            self._names.discard(key)
            self._server.unexport(launcher_path(key))
        task = asyncio.create_task(self._change(key), name=f"launcher {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, key: str) -> None:
        name = launcher_name(key)
        async with self._turn:
            if key in self._names:
                await self._buses.own(name)
            else:
                await self._buses.release(name)
