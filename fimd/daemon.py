"""The daemon: start, serve, drain, stop."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import structlog

from fimd.base.errors import BusyError
from fimd.base.live import LiveSettings
from fimd.base.logs import keep_in
from fimd.base.paths import RuntimeTree
from fimd.base.races import first
from fimd.bus.application import ApplicationInterface
from fimd.bus.buses import Buses
from fimd.bus.catalogue import CatalogueInterface
from fimd.bus.launchers import Launchers
from fimd.bus.manager import ManagerInterface
from fimd.bus.objects import publish
from fimd.bus.paths import BUS_NAME, ROOT, RUNNER, SEARCH_PROVIDER
from fimd.bus.peers import Peers
from fimd.bus.runner import RunnerInterface
from fimd.bus.search_provider import SearchProviderInterface
from fimd.bus.server import ObjectServer
from fimd.casefold import mount as casefold
from fimd.images.catalogue import Catalogue, state_directory
from fimd.images.images import Images
from fimd.instances.former import Former
from fimd.instances.housekeeping import Housekeeping
from fimd.instances.instances import Instances
from fimd.instances.launches import Launches
from fimd.jobs.changes import Changes
from fimd.jobs.jobs import Jobs
from fimd.launch import targets
from fimd.launch.programs import provide
from fimd.layers import engines
from fimd.layers.resolve import Resolver
from fimd.layers.shared import Layers
from fimd.mounts import jail
from fimd.mounts.namespace import Namespace
from fimd.mounts.output import Outputs
from fimd.service.leaving import Leaving
from fimd.service.scopes import Scopes, managed
from fimd.service.session import SystemdSession
from fimd.service.sockets import OwnSocket, are_given
from fimd.service.supervision import Supervision
from fimd.stacks import prepare
from fimd.stacks.stacks import Stacks
from fimd.store import store

log = structlog.get_logger(__name__)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_DRAIN: Final = 8.0
"""Seconds that the end of the last instances may take when the daemon leaves."""
_LEAVING: Final = 2 * _DRAIN
"""Seconds in which a daemon that is leaving has left."""
_GLANCE: Final = 0.05
"""Seconds between two looks at its lock."""


async def run(live: LiveSettings, *, on_demand: bool, on_ready: Callable[[], object]) -> None:
    """Serve until a signal, or a client, says to stop. Raises FimError where it can't start.

    With `on_demand` it is there as long as there is something to do. `on_ready` is called once it
    answers.
    """
    loop = asyncio.get_running_loop()
    settings = live.settings
    async with AsyncExitStack() as undo:
        tree = RuntimeTree.open()
        lock = await _lock(tree, is_patient=are_given())
        undo.callback(os.close, lock)
        undo.callback(os.close, tree.hold())
        keep_in(str(tree.state))
        outputs = Outputs(tree.outputs)
        undo.callback(outputs.close)
        outputs.adopt()
        modules = [engines.WORKER, casefold.WORKER, targets.WORKER, prepare.JAILED]
        namespace = Namespace(tree.state, outputs, modules)
        undo.push_async_callback(namespace.close)
        namespace.start()
        jail.use(namespace.caller(loop))
        provide(tree)
        await asyncio.to_thread(store.provide)
        engine = engines.chooser(settings, namespace)
        resolver = Resolver()
        linger = lambda: live.settings.linger  # noqa: E731 - it can be reloaded
        layers = Layers(tree, namespace, engine, linger, settings.mount_timeout)
        view = casefold.choose(settings, namespace)
        stacks = Stacks(tree, namespace, view, settings.mount_timeout)
        instances = Instances(tree, namespace, resolver, layers, stacks)
        images = Images(resolver, instances.running)
        housekeeping = Housekeeping(tree, namespace, instances, layers)
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, housekeeping.left.set)
        jobs = Jobs()
        undo.push_async_callback(jobs.close)
        changes = Changes(images, stacks, resolver, jobs, settings, namespace)
        former = Former(tree)
        undo.push_async_callback(former.close)
        await former.find()
        stacks.former_users = former.tell
        await namespace.adopt(layers.workers())
        await layers.adopt()
        await instances.adopt()
        layers.settle()
        former.see_out(layers, stacks)
        catalogue = Catalogue(state_directory(), images, instances.running)
        undo.push_async_callback(catalogue.close)
        instances.is_to_be_noted = catalogue.is_to_be_noted
        server = ObjectServer(ROOT)
        buses = Buses(server, BUS_NAME)
        undo.push_async_callback(buses.close)
        peers = Peers(server)
        undo.push_async_callback(peers.close)
        engines_used = {"dwarfs": engine().name}
        manager = ManagerInterface(
            instances, images, buses, live, engines_used, changes, housekeeping
        )
        launches = Launches(SystemdSession(buses), images, instances)
        server.export(ROOT, manager, CatalogueInterface(catalogue), ApplicationInterface(launches))
        server.export(SEARCH_PROVIDER, SearchProviderInterface(catalogue, launches))
        server.export(RUNNER, RunnerInterface(catalogue, launches))
        publish(server, layers, images, instances, changes, jobs)
        own = OwnSocket.open(tree)
        undo.callback(own.take_away)
        supervision = Supervision(f"unix:path={own.path}", layers, instances)
        await undo.enter_async_context(supervision)
        launchers = Launchers(server, buses, launches)
        undo.push_async_callback(launchers.settle)
        await launchers.follow(catalogue)
        await buses.join_all(are_told=True)
        if managed():
            undo.push_async_callback(Scopes.follow(buses, namespace, layers, instances).settle)
        await peers.listen(own.sockets)
        loop.add_signal_handler(signal.SIGHUP, supervision.reload, lambda: _reload(live, server))
        supervision.ready()
        on_ready()
        log.info("serving", name=BUS_NAME, engine=engine().name, tree=str(tree.root))
        leaving = Leaving(instances, jobs, housekeeping, buses, server, peers, own)
        idle = leaving.when_idle(lambda: live.settings.idle, on_demand=on_demand)
        await first(housekeeping.left.wait(), idle, buses.follow())
        log.info("stopping")
        peers.stop_listening()
        own.take_away()
        os.ftruncate(lock, 0)  # the next one, whom the bus may start before this one is gone, waits
        instances.closed = True
        try:
            async with asyncio.timeout(_DRAIN):
                await instances.drain()
                await layers.retire_idle()
        except TimeoutError:
            log.warning("the next daemon has to remove what is left", seconds=_DRAIN)


async def _lock(tree: RuntimeTree, *, is_patient: bool) -> int:
    """Take the tree, once a daemon that is leaving has left it. Raises BusyError.

    One whose socket systemd has taken the place of is about to leave (`is_patient`).
    """
    deadline = asyncio.get_running_loop().time() + _LEAVING
    while True:
        try:
            return tree.lock()
        except BusyError:
            is_left = is_patient or tree.is_being_left
            if not is_left or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_GLANCE)


def _reload(live: LiveSettings, server: ObjectServer) -> None:
    """Take over the settings that can change, and tell of them."""
    if live.reload():
        server.properties_changed(ROOT)
