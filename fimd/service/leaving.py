"""When a daemon leaves of itself: that nobody configured, and that has had nothing to do."""

import asyncio
from collections.abc import Callable

from fimd.bus.buses import Buses
from fimd.bus.peers import Peers
from fimd.bus.server import ObjectServer
from fimd.instances.housekeeping import Housekeeping
from fimd.instances.instances import Instances
from fimd.jobs.jobs import Jobs
from fimd.service.scopes import managed
from fimd.service.sockets import OwnSocket

_LOOKS = 10
"""Looks at what there is in the time that a daemon may be idle."""


class Leaving:
    """Whether there is anything to stay for."""

    def __init__(
        self,
        instances: Instances,
        jobs: Jobs,
        housekeeping: Housekeeping,
        buses: Buses,
        server: ObjectServer,
        peers: Peers,
        own: OwnSocket,
    ) -> None:
        self._instances = instances
        self._jobs = jobs
        self._housekeeping = housekeeping
        self._buses = buses
        self._server = server
        self._peers = peers
        self._own = own

    async def when_idle(self, seconds: Callable[[], float], *, on_demand: bool) -> None:
        """Return when the daemon has been idle for so long, and nobody configured that it stays.

        A client has started it (`on_demand`), or the session that it was started in has ended. One
        whose socket systemd has taken over leaves at once, for systemd's to take over the rest.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            await asyncio.sleep(max(0.05, min(seconds() / _LOOKS, 1.0)))
            if self._own.is_replaced and not managed():
                return
            if self._is_used() or not (on_demand or self._has_lost_its_bus()):
                since = loop.time()
            elif loop.time() - since >= seconds():
                return

    def _is_used(self) -> bool:
        return bool(
            len(self._instances.running)
            or self._housekeeping.lent
            or self._server.is_busy
            or self._peers.are_expected
            or self._is_working()
        )

    def _is_working(self) -> bool:
        return any(job.state == "running" for job in self._jobs.current)

    def _has_lost_its_bus(self) -> bool:
        return self._buses.are_lost and not managed()
