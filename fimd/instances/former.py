"""What fimd 0.1 has left in the runtime tree, with its instances running.

It mounted everything on the host, and each kernel overlay in namespaces of its own, held by a
process that works in the stack's directory. Its instances go on. Who uses a stack is the kernel's
word: the processes whose root directory is that very filesystem, whatever a record says. Until the
last of them has ended, nobody else gets the data directory; then the stack is unmounted, and with
the last stack the layers, and all that only 0.1 knew of is removed.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from fimd.base import records
from fimd.base.errors import FimError, ProcessGoneError
from fimd.base.paths import RuntimeTree
from fimd.base.removal import remove_tree
from fimd.layers.shared import Layers
from fimd.mounts.process import Process
from fimd.mounts.table import Mount, below, mounts
from fimd.mounts.unmount import detach, remove_directory
from fimd.stacks.stack import KIND
from fimd.stacks.stacks import Stacks

log = structlog.get_logger(__name__)

RECORD: Final = "instance.json"
"""What 0.1 wrote into an instance's directory."""
_STACK: Final = re.compile("[0-9a-f]{16}")
_POINTS: Final = ("view", "merged")
_ITS_OWN: Final = re.compile(r"output|lock|fimd\.log(\.\d+)?")
_LAYER_RECORD: Final = re.compile(r"[0-9a-f]{16}\.json(\.new)?")


class Former:
    """What is there of the former daemon. `find` comes before anything is adopted."""

    def __init__(self, tree: RuntimeTree) -> None:
        self._tree = tree
        self._users: dict[str, dict[int, int]] = {}
        self._is_there = False
        self._task: asyncio.Task[None] | None = None

    async def find(self) -> None:
        """Learn which of its stacks are in use, and take the others off the host."""
        self._is_there = await asyncio.to_thread(_is_there, self._tree)
        if not self._is_there:
            return
        await asyncio.to_thread(_remove_matching, self._tree.root / "layers", _LAYER_RECORD)
        self._users = await asyncio.to_thread(users, self._tree)
        for stack_id in await asyncio.to_thread(_stacks, self._tree):
            if stack_id not in self._users:
                await self._release(stack_id)
        if self._users:
            log.warning(
                "instances of an earlier fimd go on",
                processes=self.tell(*self._users),
                stacks=" ".join(self._users),
            )

    def tell(self, *stack_ids: str) -> str:
        """Return the processes of its instances that use stacks, empty where there are none."""
        found = [self._users[stack_id] for stack_id in stack_ids if stack_id in self._users]
        return ", ".join(map(str, sorted({pid for pids in found for pid in pids.values()})))

    def see_out(self, layers: Layers, stacks: Stacks) -> None:
        """Begin to wait for the end of its instances, to remove then what they leave."""
        if self._is_there:
            self._task = asyncio.create_task(self._over(layers, stacks), name="former instances")

    async def close(self) -> None:
        """Leave what goes on to the next daemon."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _over(self, layers: Layers, stacks: Stacks) -> None:
        await asyncio.gather(*(self._until_free(stack_id, stacks) for stack_id in self._users))
        try:
            await self._tidy(layers)
        except (FimError, OSError) as error:
            log.error("what an earlier fimd left can't be removed", reason=str(error))
        else:
            log.info("nothing is left of an earlier fimd", tree=str(self._tree.root))

    async def _until_free(self, stack_id: str, stacks: Stacks) -> None:
        """Wait until no process has a stack as its root, and remove it."""
        while (found := await asyncio.to_thread(users, self._tree)).get(stack_id):
            self._users[stack_id] = found[stack_id]
            with suppress(ProcessGoneError):
                await Process.watch(min(found[stack_id])).wait()
        await self._release(stack_id)
        await stacks.forget(stack_id)
        del self._users[stack_id]  # not before: who comes now makes that directory anew
        stacks.free(stack_id)

    async def _release(self, stack_id: str) -> None:
        """Take a stack off the host, and end what holds or serves it."""
        directory = str(self._tree.stack(stack_id))
        try:
            await _unmount_below(directory)
            for pid in await asyncio.to_thread(_working_in, directory):
                with suppress(ProcessGoneError):
                    await Process.watch(pid).stop()
            for point in _POINTS:  # and out of the namespaces that have copied it
                await asyncio.to_thread(remove_directory, os.path.join(directory, point))
        except (FimError, OSError) as error:
            log.error("a stack of an earlier fimd stays", fim_stack=stack_id, reason=str(error))
        else:
            log.info("a stack of an earlier fimd is unmounted", fim_stack=stack_id)

    async def _tidy(self, layers: Layers) -> None:
        """Unmount its layers, which nobody uses any more, and remove what was its own."""
        directory = self._tree.root / "layers"
        points = {Path(mount.mount_point) for mount in below(str(directory))}
        await _unmount_below(str(directory))
        for point in points:
            if point.parent == directory and not layers.has(point.name):
                remove_directory(str(point))
        await asyncio.to_thread(_remove_matching, self._tree.root, _ITS_OWN)


def known(tree: RuntimeTree, pid: int) -> Process | None:
    """Watch the process of one of its instances by the directory of that; None where it ended."""
    facts = records.read(str(tree.instance(pid) / RECORD))
    started = facts.get("process_started") if facts is not None else None
    return Process.known(pid, started) if isinstance(started, int) else None


def users(tree: RuntimeTree) -> dict[str, dict[int, int]]:
    """Return the processes whose root is a stack of an earlier fimd, by the stack.

    With each of them is the one that its instance goes by.
    """
    names = _stacks(tree) if _is_there(tree) else set()
    if not names:
        return {}
    tables = dict(_tables())
    of_stack = {
        mount.device: stack_id
        for table in tables.values()
        for mount in table
        for stack_id in names
        if mount.mount_point in {str(tree.stack(stack_id) / point) for point in _POINTS}
    }
    found: dict[str, dict[int, int]] = {}
    for pid, table in sorted(tables.items()):
        root = [mount.device for mount in table if mount.mount_point == "/"]
        if root and root[-1] in of_stack:
            found.setdefault(of_stack[root[-1]], {})[pid] = _instance_of(tree, pid)
    return found


def _instance_of(tree: RuntimeTree, pid: int) -> int:
    """Return the process that the instance goes by which a process is of; else that process."""
    above: int | None = pid
    while above is not None and above > 1:
        if tree.instance(above).is_dir():
            return above
        above = _parent(above)
    return pid


def _is_there(tree: RuntimeTree) -> bool:
    """Whether there is anything of it: its directory for pipes goes last."""
    mounted = below(str(tree.root / "layers")) or below(str(tree.root / "stacks"))
    return bool(mounted) or any(_ITS_OWN.fullmatch(name) for name in os.listdir(tree.root))


def _stacks(tree: RuntimeTree) -> set[str]:
    """Return its stacks: those that there is no record of where records are now."""
    names = filter(_STACK.fullmatch, os.listdir(tree.root / "stacks"))
    return {name for name in names if not os.path.lexists(tree.record(KIND, name))}


def _tables() -> Iterator[tuple[int, list[Mount]]]:
    """Yield this user's processes with what is mounted for them; each namespace is read once."""
    known_tables: dict[str, list[Mount]] = {}
    for pid in _processes():
        with suppress(OSError):  # another user's, or it has ended
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in known_tables:
                known_tables[namespace] = mounts(pid)
            yield pid, known_tables[namespace]


def _working_in(directory: str) -> list[int]:
    """Return the processes whose working directory is a stack's: its servers, or its holder."""
    found = []
    for pid in _processes():
        with suppress(OSError):
            where = os.readlink(f"/proc/{pid}/cwd")
            if where == directory or where.startswith(f"{directory}/"):
                found.append(pid)
    return found


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


async def _unmount_below(directory: str) -> None:
    for mount in reversed(below(directory)):
        await detach(mount.mount_point)


def _remove_matching(directory: Path, names: re.Pattern[str]) -> None:
    """Remove what has one of these names in a directory. Raises OSError where it stays."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(names.fullmatch, os.listdir(descriptor)):
            remove_tree(descriptor, name)
    finally:
        os.close(descriptor)
