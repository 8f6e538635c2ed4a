"""Running instances: started on request, released when the kernel says that they have ended."""

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial

import structlog

from fimd.base import records
from fimd.base.errors import BusyError, FimError, ProcessGoneError, ShuttingDownError
from fimd.base.neighbours import other_trees
from fimd.base.observe import Collection
from fimd.base.paths import RuntimeTree
from fimd.images.image import ImageFacts, read_image
from fimd.instances import adoption, ending, former
from fimd.instances.instance import KIND, Instance, InstanceState, describe, instance_id
from fimd.instances.setting_up import SettingUp
from fimd.instances.without_fuse import told
from fimd.launch import targets
from fimd.launch.cover import Cover
from fimd.launch.draft import Draft, draft
from fimd.launch.place import Place
from fimd.launch.plan import LaunchPlan, launch_plan, wants_own_processes
from fimd.launch.request import StartRequest
from fimd.launch.sandbox import Sandbox
from fimd.launch.terminal import terminal_signals
from fimd.layers.resolve import Resolver
from fimd.layers.shared import Layers
from fimd.layers.source import LayerSource
from fimd.mounts import fuse_device
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process, start_time
from fimd.mounts.steps import Errand
from fimd.overlays import DEFAULT
from fimd.stacks.data import DataDirectory
from fimd.stacks.stack import Stack, StackSpec
from fimd.stacks.stacks import OutdatedError, Stacks
from fimd.stacks.waiting import patiently
from fimd.store import store

log = structlog.get_logger(__name__)

_PID = re.compile("[1-9][0-9]{0,9}")
_KILLED = 3.0
"""Seconds in which a process that was killed ends, unless it waits for a filesystem that hangs."""
_SETTLING = 0.5
"""Seconds that a sandbox's last process may outlive its program by without being left behind."""
_NO_PROCESSES = (
    "programs see and may end the host's processes: no process namespace can be had here ({})"
)


class Instances:
    """All running instances of this user."""

    def __init__(
        self,
        tree: RuntimeTree,
        namespace: Namespace,
        resolver: Resolver,
        layers: Layers,
        stacks: Stacks,
    ) -> None:
        self._sandbox = Sandbox()
        self._tree = tree
        self._namespace = namespace
        self._resolver = resolver
        self._layers = layers
        self._stacks = stacks
        self._starting: set[int] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        """What waits for the programs of instances whose process has ended."""
        self.closed = False
        self.on_refusal: Callable[[StartRequest, FimError], None] = lambda _request, _error: None
        """Called when an image could not be started for a process."""
        self.is_to_be_noted: Callable[[str], bool] = lambda _path: True
        """Asked, once it runs, whether an image's note is to be told: it is at its first time."""
        layers.on_failure = lambda layer: stacks.fail_layer(layer.id)
        stacks.on_failure = self._on_failure
        stacks.name_user = self._name
        self._setting_up = SettingUp()
        layers.before_unmount = stacks.before_unmount = self._setting_up.over
        self.running: Collection[Instance] = Collection()

    async def start(self, request: StartRequest) -> tuple[Instance, LaunchPlan, list[str]]:
        """Mount what an image needs and return the instance, its launch plan, and warnings.

        Waits for others' use of the data directory as long as the request says. Raises a FimError,
        and then has released all that was acquired.
        """
        if request.pid in self._starting:
            raise BusyError(f"process {request.pid} is starting an image already")
        self._starting.add(request.pid)
        try:
            return await patiently(lambda: self._up_to_date(request), request.wait, request.pid)
        except FimError as error:
            log.warning(
                "start refused",
                fim_instance=request.pid,
                fim_image=await asyncio.to_thread(os.path.realpath, request.image),
                reason=str(error),
            )
            self.on_refusal(request, error)
            raise
        finally:
            self._starting.discard(request.pid)

    async def _up_to_date(self, request: StartRequest) -> tuple[Instance, LaunchPlan, list[str]]:
        """Start an image, with what a commit that ended meanwhile has made of it."""
        while True:
            with suppress(OutdatedError):
                return await self._start(request)

    async def _start(self, request: StartRequest) -> tuple[Instance, LaunchPlan, list[str]]:
        if self.closed:
            raise ShuttingDownError("fimd is shutting down: try again in a moment")
        process = Process.watch(request.pid)
        async with AsyncExitStack() as undo:
            undo.callback(process.close)
            await self._predecessor(request.pid)
            started = start_time(request.pid)
            if request.started not in {None, started}:
                raise ProcessGoneError(f"process {request.pid} ended before its start began")
            await self._sandbox.check()
            changes = self._stacks.changes
            image, data, sources, warnings = await asyncio.to_thread(self._read, request)
            layers = await self._layers.acquire(sources)
            undo.callback(self._layers.release, layers)
            no_fuse = fuse_device.missing()
            overlay, casefold = _choose(request, image)
            if no_fuse is not None:
                casefold = "off"
            spec = StackSpec(data, tuple(source.id for source in sources), overlay, casefold)
            place = self._place(request, image, data)
            undo.callback(self._remove, request.pid)
            asked = await asyncio.to_thread(_prepare, place, request, image)
            with targets.finding(asked.binds, asked.looks, asked.directories) as finding:
                errand = Errand(finding)
                stack = await self._stacks.acquire(spec, layers, request.pid, changes, errand)
                undo.push_async_callback(self._stacks.release, stack, request.pid)
                if errand.result is None:
                    there = {**finding.arguments, "root": stack.root}
                    [errand.result] = await self._namespace.call(
                        replace(finding, arguments=there), serves=("fim_stack", spec.id)
                    )
            found = targets.found(asked.binds, asked.looks, errand.result)
            warnings += told(stack, no_fuse)
            own_processes = wants_own_processes(image)
            if own_processes and self._sandbox.no_processes:
                own_processes = False
                warnings.append(_NO_PROCESSES.format(self._sandbox.no_processes))
            instance = Instance(
                process=process,
                process_started=started,
                request=replace(request, environment={}),  # which may be large
                facts=image,
                data=data.path,
                stack=stack,
                layers=tuple(layers),
                directory=place.directory,
                started_at=time.time(),
                own_processes=own_processes,
            )
            record = self._tree.record(KIND, str(instance.pid))
            host = self._namespace.host_mounts()

            def settle() -> LaunchPlan:
                plan = launch_plan(
                    place,
                    stack.root,
                    request,
                    image,
                    asked,
                    found,
                    terminal_signals(request.pid),
                    Cover.of((place.app, *other_trees(place.app), store.place()), host),
                    own_processes=own_processes,
                )
                _write(place, plan.files)
                describe(instance, record)
                return plan

            plan = await asyncio.to_thread(settle)
            warnings += [*asked.warnings, *found.warnings, *plan.warnings]
            if not process.alive:
                raise ProcessGoneError(f"process {request.pid} ended before its start was over")
            undo.pop_all()
        self._setting_up.begin(request.pid)
        self.running.add(instance.id, instance)
        process.on_end(partial(self._on_end, instance))
        if plan.note and self.is_to_be_noted(image.path):
            warnings.append(plan.note)
        log.info(
            "instance started",
            fim_instance=request.pid,
            fim_image=image.path,
            fim_stack=spec.id,
            fim_layer=" ".join(layer.id for layer in layers),
        )
        return instance, plan, warnings

    def _read(
        self, request: StartRequest
    ) -> tuple[ImageFacts, DataDirectory, list[LayerSource], list[str]]:
        """Return the image, its data directory, the layers of its stack, and warnings."""
        image = read_image(request.image, self._resolver, request.data, request.layers)
        data = DataDirectory.of(image.path, request.data)
        warnings = [*image.warnings, *data.passed_over(image.path)]
        external = self._resolver.external([*request.layers, data.layers], warnings)
        return image, data, [*image.layers, *external], warnings

    def _place(self, request: StartRequest, image: ImageFacts, data: DataDirectory) -> Place:
        return Place(
            image=image.path,
            data=data.path,
            layers=data.layers,
            directory=str(self._tree.instance(request.pid)),
            join=self._namespace.join,
            namespaces=self._namespace.links,
            shared=self._namespace.shared,
            app=str(self._tree.root),
            global_directory=str(self._tree.global_directory),
            pid=request.pid,
            reserved_offset=image.reserved_offset,
            is_alone=os.getuid() != 0 and self._namespace.ids == 1,
        )

    async def adopt(self) -> None:
        """Take over the instances of a daemon that died, with their layers and stacks.

        What ended meanwhile is removed. Nothing else may have been started yet.
        """
        found = []
        for name in await asyncio.to_thread(self._tree.found, "instance", _PID):
            facts = await asyncio.to_thread(records.read, self._tree.record(KIND, name))
            process = adoption.living(int(name), facts, str(self._tree.instance(int(name))))
            if facts is None or process is None:
                earlier = former.known(self._tree, int(name))
                if earlier is not None:
                    earlier.on_end(partial(self._remove, earlier.pid))
                    continue
                await asyncio.to_thread(self._remove, int(name))
            else:
                found.append((facts, process))
        users: dict[str, list[int]] = {}
        for facts, process in found:
            users.setdefault(facts["stack"], []).append(process.pid)
        stacks = await self._stacks.adopt(users)
        for facts, process in found:
            stack = stacks.get(facts["stack"])
            if stack is None:
                log.error("an instance's filesystem is unknown", fim_instance=process.pid)
                process.on_end(partial(self._remove, process.pid))
                continue
            layers = [self._layers.retain(layer_id) for layer_id in facts["layers"]]
            present = tuple(layer for layer in layers if layer is not None)
            image = await asyncio.to_thread(adoption.image_facts, facts, self._resolver)
            directory = str(self._tree.instance(process.pid))
            instance = adoption.instance(facts, process, stack, present, image, directory)
            if stack.failed:
                instance.state = InstanceState.FAILED
            self.running.add(instance.id, instance)
            process.on_end(partial(self._on_end, instance))
            log.info("instance adopted", fim_instance=process.pid, fim_image=image.path)
            if None in layers:
                self._stacks.fail(stack, "a layer")

    def _on_failure(self, stack: Stack) -> None:
        for instance in self.running:
            if instance.stack is stack and instance.state is InstanceState.RUNNING:
                instance.state = InstanceState.FAILED
                self.running.changed(instance.id)

    def _name(self, pid: int) -> str:
        """Tell of an instance by its process, and of its other ones where that has ended."""
        instance = self.running.get(instance_id(pid))
        if instance is None or instance.process.alive:
            return str(pid)
        left = ", ".join(map(str, instance.inside.processes()))
        return f"{pid} (in its background: {left}; 'fimctl stop {pid}' ends them)"

    async def _predecessor(self, pid: int) -> None:
        """Wait until what the same process started before is released.

        A PID comes back when its process has ended, and a process that failed to execute its plan
        may ask again.
        """
        old = self.running.get(instance_id(pid))
        if old is None:
            return
        if old.state is InstanceState.BACKGROUND:
            raise BusyError(
                f"process {pid} has the number of one whose programs run in the background "
                f"('fimctl stop {pid}' ends them): try again"
            )
        if not old.process.alive:
            await old.ended.wait()
        await self._end(old)

    def _on_end(self, instance: Instance) -> None:
        task = asyncio.create_task(self._see_out(instance), name=f"end {instance.pid}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _see_out(self, instance: Instance) -> None:
        """Release an instance whose process has ended, once its other processes have."""
        task = asyncio.current_task()
        assert task is not None
        await ending.over(instance, partial(self._on_background, instance, task))
        self._background.discard(task)
        self._ending.add(task)
        instance.ended.set()
        await self._end(instance)

    def _on_background(self, instance: Instance, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._background.add(task)
        if instance.state is InstanceState.RUNNING:
            instance.state = InstanceState.BACKGROUND
            self.running.changed(instance.id)
            log.info("instance is in the background", fim_instance=instance.pid)

    async def _end(self, instance: Instance) -> None:
        """Release what an instance holds; once, however often it is called."""
        if instance.state is InstanceState.ENDING:
            return
        instance.state = InstanceState.ENDING
        self.running.changed(instance.id)
        try:
            await self._stacks.release(instance.stack, instance.pid)
        finally:
            self._layers.release(instance.layers)
            await asyncio.to_thread(self._remove, instance.pid)
            instance.process.close()
            self.running.remove(instance.id)
            log.info("instance ended", fim_instance=instance.pid, fim_image=instance.image)

    async def stop(self, instance: Instance, seconds: float = 10.0) -> None:
        """End an instance: ask its programs, then kill them, and end what they wait for."""
        if not await ending.asked_to_end(instance, seconds):
            instance.process.send_signal(signal.SIGKILL)
            await ending.kill(instance)
            if not await instance.has_ended(_KILLED):
                await self._stacks.give_up_silent(instance.stack, _KILLED)
                await self._layers.give_up_silent(instance.layers, _KILLED)
                if not await instance.has_ended(_KILLED):
                    raise FimError(
                        f"process {instance.pid} was killed and does not end: it waits for "
                        "something that is no filesystem of fimd's"
                    )

    def _remove(self, pid: int) -> None:
        """Remove what is there of an instance; what can't be removed is set aside."""
        directory = self._tree.instance(pid)
        shutil.rmtree(directory, ignore_errors=True)
        self._tree.set_aside(directory)
        records.remove(self._tree.record(KIND, str(pid)))

    async def drain(self) -> None:
        """Wait until what has ended is released.

        A sandbox whose program has just ended is in the background for a moment, until its last
        process is gone: this is waited for, too.
        """
        if self._background:
            await asyncio.wait(set(self._background), timeout=_SETTLING)
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)


def _choose(request: StartRequest, image: ImageFacts) -> tuple[str, str]:
    overlay = request.overlay or image.overlay or DEFAULT
    return overlay, image.casefold if image.casefold != "off" else request.casefold or "off"


def _prepare(place: Place, request: StartRequest, image: ImageFacts) -> Draft:
    """Work out what a start asks for, and write the files that it refers to."""
    asked = draft(place, request, image)
    os.makedirs(place.directory, mode=0o700)
    _write(place, asked.files)
    return asked


def _write(place: Place, files: Mapping[str, str]) -> None:
    """Write files into an instance's directory."""
    for name, text in files.items():
        with open(os.path.join(place.directory, name), "w", errors="surrogateescape") as file:
            file.write(text)
