"""The user's namespace, in which everything is mounted: what the rest of the daemon has of it.

It is made at the first need, and ended when nothing is mounted in it any more. Who mounts something
holds it for as long; so does who has work done in it. It is kept by a process (fimd.mounts.holder),
which is replaced in the same namespace where it has been killed, and what is done in it is done by
another one (fimd.mounts.template).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from fimd.base import records
from fimd.base.errors import FimError, MountError
from fimd.mounts import holder
from fimd.mounts.forks import Template
from fimd.mounts.holder import Holder
from fimd.mounts.origin import Origin
from fimd.mounts.output import Output, Outputs
from fimd.mounts.process import Process
from fimd.mounts.shared import SHARED
from fimd.mounts.steps import Errand, Step
from fimd.mounts.table import Mount, MountTable

log = structlog.get_logger(__name__)

SHARE: Final = "fimd.mounts.shared:share"
_PREPARE: Final = 10.0
"""Seconds that making a new one ready may take."""
_CALL: Final = 20.0
"""Seconds that a small thing done for a thread may take."""
_UNMOUNT: Final = 10.0
"""Seconds that detaching may take: it waits for nobody."""


class Namespace:
    """The namespace, there or not. Its owner is the daemon."""

    def __init__(self, state: Path, outputs: Outputs, modules: Sequence[str]) -> None:
        """`state` is where the holder is written down, `modules` are what its processes run."""
        self._record = state / "holder.json"
        self._shared = str(state / "shared")
        self.outputs = outputs
        self._holder: Holder | None = None
        self._kept: list[tuple[int, int]] = []
        self._table: MountTable | None = None
        self._host_table: MountTable | None = None
        self._is_shared = False
        self._origin = Origin(modules)
        self._template = self._new_template()
        self._holds = 0
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._observers: list[Callable[[Process], None]] = []

    def start(self) -> None:
        """Have the process warm that those who work in it are forked from."""
        self._origin.start()

    def follow(self, observer: Callable[[Process], None]) -> None:
        """Have `observer` called with each process that holds it, also the present one."""
        self._observers.append(observer)
        if self._holder is not None:
            observer(self._holder.process)

    async def adopt(self, workers: Iterable[int]) -> None:
        """Find the one that a former daemon made: by its holder, or by a process in it.

        `workers` are processes that were recorded, and are known to live.
        """
        found = holder.known(await asyncio.to_thread(records.read, str(self._record)))
        if found is not None:
            try:
                await self._enter(found)
            except FimError as error:  # it has just been killed
                log.warning("the holder can't be followed", reason=str(error))
            else:
                return
        for pid in workers:
            try:
                if await asyncio.to_thread(holder.is_in_a_namespace, pid):
                    await self._enter(await holder.revive(holder.namespaces_of(pid)))
                    log.warning("the holder of the namespace had died", process=pid)
                    return
            except (FimError, OSError) as error:
                log.warning("a namespace can't be joined", process=pid, reason=str(error))
        await asyncio.to_thread(records.remove, str(self._record))

    async def close(self) -> None:
        """Leave it, and end it where nothing is mounted in it."""
        self._closed = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._turn:
            await self._template.close()
            await self._origin.close()
            if not self._is_used:
                await self._end()
            elif self._holder is not None:
                self._holder.process.close()
            self._forget()

    # holding it

    async def hold(self) -> None:
        """Have it there until `release`. Raises UnsupportedError where it can't be made."""
        self._holds += 1
        try:
            async with self._turn:
                if self._holder is None:
                    ahead = asyncio.create_task(self._template.fork_ahead())
                    try:
                        await self._enter(await holder.start())
                    finally:
                        await ahead
                    try:
                        share = Step(
                            SHARE, "shared", _PREPARE, {"target": self._shared}, again=True
                        )
                        await self.call(share, serves=("fim_stack", "shared"))
                        self._is_shared = True
                    except BaseException:
                        await self._end()
                        raise
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of it; with the last one it is ended."""
        self._holds -= 1
        if self._holds == 0 and self._holder is not None and not self._closed:
            task = asyncio.create_task(self._leave(), name="leave the namespace")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold it for a while."""
        await self.hold()
        try:
            yield
        finally:
            self.release()

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self._holder is not None

    @property
    def join(self) -> tuple[str, ...]:
        """The beginning of a command that is run in it. For who holds it."""
        return self._there.join

    @property
    def links(self) -> tuple[str, str]:
        """Links to the namespaces that `join` enters. For who holds it."""
        return self._there.links

    @property
    def ids(self) -> int:
        """How many ids are mapped. For who holds it."""
        return self._there.ids

    @property
    def shared(self) -> str:
        """Where sandboxes are to take the host's /tmp from: see fimd.mounts.shared."""
        return self._shared if self._is_shared else SHARED

    @property
    def process(self) -> Process:
        """What holds it. For who holds it."""
        return self._there.process

    # what is mounted

    def mounts(self) -> list[Mount]:
        """Return what is mounted in it and not on the host, in the order of mounting."""
        if self._table is None:
            return []
        host = set(self.host_mounts())
        return [mount for mount in self._table.mounts() if mount not in host]

    def host_mounts(self) -> list[Mount]:
        """Return what is mounted on the host, in the order of mounting."""
        if self._host_table is None:
            self._host_table = MountTable()
        return self._host_table.mounts()

    def below(self, directory: str) -> list[Mount]:
        """Return what is mounted at or under a directory, in the order of mounting."""
        prefix = directory.rstrip("/") + "/"
        return [
            mount
            for mount in self.mounts()
            if mount.mount_point == directory or mount.mount_point.startswith(prefix)
        ]

    async def wait_for(self, mount_point: str, *, mounted: bool, seconds: float) -> None:
        """Wait until something is mounted there, or nothing is. Raises MountError."""
        if self._table is None:
            raise MountError(f"{mount_point}: nothing is mounted for this user")
        await self._table.wait_for(mount_point, mounted=mounted, seconds=seconds)

    async def unmount(self, mount_point: str) -> None:
        """Take a mount out of the tree at once; what still uses it keeps being served.

        The kernel ends a FUSE filesystem's connection with its last user, and its process then
        leaves. Raises MountError where the mount stays.
        """
        try:
            await self._template.unmount(mount_point, _UNMOUNT)
        except OSError as error:
            if self.below(mount_point):
                raise MountError(f"{mount_point} can't be unmounted: {error.strerror}") from error

    # what is done in it

    async def serve(self, worker: str, **facts: Any) -> Process:
        """Fork a worker that serves a filesystem: see Template.serve."""
        return await self._template.serve(worker, **facts)

    async def call(
        self, *steps: Step, serves: tuple[str, str], errand: Errand | None = None
    ) -> list[Any]:
        """Have steps taken in a process of their own: see Template.call."""
        return await self._template.call(*steps, serves=serves, errand=errand)

    def caller(self, loop: asyncio.AbstractEventLoop) -> Callable[[str, dict[str, Any]], Any]:
        """Return what has functions called in it for threads: see fimd.mounts.jail.call_apart."""

        async def call(function: str, arguments: dict[str, Any]) -> Any:
            async with self.held():
                name = function.rpartition(":")[2]
                step = Step(function, name, _CALL, arguments)
                [result] = await self.call(step, serves=("fim_job", name))
                return result

        def wait(function: str, arguments: dict[str, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(call(function, arguments), loop).result()

        return wait

    async def spawn(self, argv: Sequence[str], **facts: Any) -> tuple[Process, Output]:
        """Start a program: see Template.spawn."""
        return await self._template.spawn(argv, **facts)

    # its life

    @property
    def _is_used(self) -> bool:
        """Whether anything is mounted in it for this user."""
        tree = str(self._record.parent.parent)
        return any(
            mount.mount_point != self._shared
            and not mount.mount_point.startswith(f"{self._shared}/")
            for mount in self.below(tree)
        )

    @property
    def _there(self) -> Holder:
        if self._holder is None:
            raise MountError("there is no namespace for mounts: see 'fimctl doctor'")
        return self._holder

    def _new_template(self) -> Template:
        return Template(self._origin, self.outputs, self._descriptors)

    def _descriptors(self) -> list[tuple[int, int]]:
        if not self._kept:
            raise MountError("there is no namespace for mounts: see 'fimctl doctor'")
        return [(os.dup(descriptor), kind) for descriptor, kind in self._kept]

    async def _enter(self, found: Holder) -> None:
        try:
            self._kept = found.open_namespaces()
            self._table = MountTable(found.process.pid)
            self._is_shared = self._shared in self._table.points()
            facts = found.record()
            await asyncio.to_thread(records.write, str(self._record), facts)
        except BaseException:
            self._forget()
            await found.process.stop()
            raise
        self._hold_by(found)
        log.info("namespace entered", process=found.process.pid, ids=found.ids)

    def _hold_by(self, found: Holder) -> None:
        self._holder = found
        found.process.on_end(lambda: self._on_end(found))
        for observer in self._observers:
            observer(found.process)

    def _on_end(self, ended: Holder) -> None:
        if self._holder is not ended or self._closed:
            return
        log.error("the holder of the namespace died", process=ended.process.pid)
        task = asyncio.create_task(self._revive(ended), name="revive the holder")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _revive(self, ended: Holder) -> None:
        """Put another process in the holder's place: the namespace lives on in what is in it."""
        async with self._turn:
            if self._holder is not ended:
                return
            directory = f"/proc/{os.getpid()}/fd"
            paths = {kind: f"{directory}/{descriptor}" for descriptor, kind in self._kept}
            try:
                found = await holder.revive(paths)
                await asyncio.to_thread(records.write, str(self._record), found.record())
            except (FimError, OSError) as error:
                log.error("the namespace has no holder any more", reason=str(error))
                return
            self._hold_by(found)

    async def _leave(self) -> None:
        """End it, unless somebody has come."""
        async with self._turn:
            if self._holds or self._holder is None or self._closed:
                return
            former, self._template = self._template, self._new_template()
            await self._end()
        await former.close()

    async def _end(self) -> None:
        found, self._holder = self._holder, None
        self._forget()
        if found is not None:
            await found.process.stop()
            log.info("namespace left", process=found.process.pid)
        with suppress(OSError):
            await asyncio.to_thread(records.remove, str(self._record))

    def _forget(self) -> None:
        for table in (self._table, self._host_table):
            if table is not None:
                table.close()
        self._table = self._host_table = None
        for descriptor, _ in self._kept:
            os.close(descriptor)
        self._kept = []
