"""Scopes of systemd for the processes that serve mounts, so that they outlive the daemon's unit.

Under systemd a process belongs to the unit of who started it. What serves a mount is moved to a
transient scope of its own in the slice fimd.slice: stopping or killing fimd.service leaves it, and
`systemd-cgls --user-unit fimd.slice` shows what a mount costs. Without systemd each such process
has a session of its own, which does as much.
"""

import asyncio
import os
from typing import Final

import structlog
from dbus_next.message import Message
from dbus_next.signature import Variant

from fimd.base.observe import Event
from fimd.bus.buses import Buses
from fimd.bus.connection import BusError
from fimd.instances.instance import Instance
from fimd.instances.instances import Instances
from fimd.layers.mounted import Layer
from fimd.layers.shared import Layers
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process

log = structlog.get_logger(__name__)

SLICE: Final = "fimd.slice"
SERVICE: Final = "fimd.service"
APPLICATIONS: Final = "app.slice"
"""Where desktops keep what the user has started (systemd.special(7))."""


class Scopes:
    """Moves mount processes to scopes, each once."""

    def __init__(self, buses: Buses) -> None:
        self._buses = buses
        self._moved: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def follow(
        cls, buses: Buses, namespace: Namespace, layers: Layers, instances: Instances
    ) -> "Scopes":
        """Move what serves layers and instances, now and as they come."""
        scopes = cls(buses)
        namespace.follow(lambda holder: scopes._move(holder, "namespace", "Where mounts are"))
        layers.mounted.subscribe(scopes._on_layer)
        instances.running.subscribe(scopes._on_instance)
        return scopes

    async def settle(self) -> None:
        """Wait until what was begun is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_layer(self, event: Event, _key: str, layer: Layer) -> None:
        if event is not Event.REMOVED and layer.process is not None:
            self._move(layer.process, f"layer-{layer.mount.id}", f"Layers in {layer.source.path}")

    def _on_instance(self, event: Event, _key: str, instance: Instance) -> None:
        if event is Event.REMOVED:
            return
        stack = instance.stack
        described = f"of {instance.image}"
        if stack.overlay.process is not None:
            self._move(stack.overlay.process, f"stack-{stack.spec.id}", f"Overlay {described}")
        if stack.view is not None:
            self._move(stack.view, f"view-{stack.spec.id}", f"Case-insensitive view {described}")

    def _move(self, process: Process, name: str, description: str) -> None:
        if process.pid in self._moved or not process.alive:
            return
        self._moved.add(process.pid)
        process.on_end(lambda: self._moved.discard(process.pid))
        if _in_slice(process.pid):
            return  # an earlier daemon's, adopted by this one
        unit = f"fimd-{name}-{process.pid}.scope"
        task = asyncio.create_task(self._start(unit, process.pid, description), name=unit)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, unit: str, pid: int, description: str) -> None:
        # at logout the daemon leaves first, so that it can unmount in order
        before = ("Before", Variant("as", [SERVICE]))
        try:
            await start_scope(self._buses, unit, pid, description, SLICE, before)
        except BusError as error:
            log.warning("no scope for a mount's process", unit=unit, reason=str(error))


async def start_scope(
    buses: Buses,
    unit: str,
    pid: int,
    description: str,
    parent: str,
    *further: tuple[str, Variant],
) -> None:
    """Move a process to a new scope in the slice `parent`. Raises BusError."""
    properties = [
        ("PIDs", Variant("au", [pid])),
        ("Slice", Variant("s", parent)),
        ("Description", Variant("s", description.encode(errors="replace").decode())),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        *further,
    ]
    message = Message(
        destination="org.freedesktop.systemd1",
        path="/org/freedesktop/systemd1",
        interface="org.freedesktop.systemd1.Manager",
        member="StartTransientUnit",
        signature="ssa(sv)a(sa(sv))",
        body=[unit, "fail", list(map(list, properties)), []],
    )
    await buses.ask(message)


def managed() -> bool:
    """Tell whether this process is a service of systemd's user manager."""
    return bool(os.environ.get("NOTIFY_SOCKET")) and f"/{SERVICE}" in _cgroups(os.getpid())


def _in_slice(pid: int) -> bool:
    return f"/{SLICE}/" in _cgroups(pid)


def _cgroups(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return file.read()
    except OSError:
        return ""
