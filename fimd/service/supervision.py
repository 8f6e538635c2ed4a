"""What systemd is told: that the daemon is ready, alive, and what it holds (sd_notify(3)).

Without systemd there is no NOTIFY_SOCKET, and all of this does nothing.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Self

import structlog
from dbus_next.message import Message

from fimd.base.errors import FimError
from fimd.bus.connection import BusError, Connection
from fimd.bus.paths import ROOT
from fimd.instances.instances import Instances
from fimd.layers.shared import Layers
from systemd import daemon as systemd_daemon  # type: ignore[attr-defined]

log = structlog.get_logger(__name__)

_QUIET: Final = 0.2
"""Seconds in which changes of the status are gathered into one message."""


class Supervision:
    """Tells systemd of the daemon while it runs; entered before the name is taken."""

    def __init__(self, address: str, layers: Layers, instances: Instances) -> None:
        self._address = address
        self._layers = layers
        self._instances = instances
        self._timer: asyncio.TimerHandle | None = None
        self._told = ""
        self._undo = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._layers.mounted.subscribe(lambda *_: self._on_change())
        self._instances.running.subscribe(lambda *_: self._on_change())
        interval = watchdog_interval()
        if interval is not None:
            watchdog = asyncio.create_task(self._watch(interval), name="watchdog")
            self._undo.push_async_callback(asyncio.wait, [watchdog])
            self._undo.callback(watchdog.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        systemd_daemon.notify("STOPPING=1")
        if self._timer is not None:
            self._timer.cancel()
        await self._undo.aclose()

    def ready(self) -> None:
        """Tell that everything is as it was before a restart, and that calls are answered."""
        self._told = self._status()
        systemd_daemon.notify(f"READY=1\nSTATUS={self._told}")

    def reload(self, work: Callable[[], object]) -> None:
        """Do what a reload is, and tell when it begins and ends."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        systemd_daemon.notify(f"RELOADING=1\nMONOTONIC_USEC={now}")
        try:
            work()
        finally:
            self.ready()

    def _on_change(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_QUIET, self._tell_status)

    def _tell_status(self) -> None:
        self._timer = None
        status = self._status()
        if status != self._told:
            self._told = status
            systemd_daemon.notify(f"STATUS={status}")

    def _status(self) -> str:
        stacks = {id(instance.stack): instance.stack for instance in self._instances.running}
        layers = [layer for layer in self._layers.mounted if layer.process is not None]
        mounts = len({layer.mount.id for layer in layers})
        mounts += sum(1 + (stack.view is not None) for stack in stacks.values())
        return (
            f"{_count(len(self._instances.running), 'instance')}, {_count(len(layers), 'layer')}, "
            f"{_count(mounts, 'mount')}"
        )

    async def _watch(self, interval: float) -> None:
        """Tell that the daemon is alive as long as it answers a call of its own by its socket."""
        ping = Message(path=ROOT, interface="org.freedesktop.DBus.Peer", member="Ping")
        while True:
            await asyncio.sleep(interval)
            try:
                connection = await Connection.open(self._address, seconds=interval)
            except FimError as error:
                log.error("no answer from fimd's own socket", reason=str(error))
                continue
            try:
                await connection.ask(ping, seconds=interval)
            except BusError as error:
                log.error("no answer by fimd's own socket", reason=str(error))
                continue
            finally:
                connection.disconnect()
            systemd_daemon.notify("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Return how often systemd wants to hear from this process, with time to spare, in seconds.

    None where it does not (sd_watchdog_enabled(3)).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 1e6 / 3 if microseconds > 0 else None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
