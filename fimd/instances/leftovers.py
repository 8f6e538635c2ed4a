"""What crashes and FlatImage itself have left in the runtime tree, and nobody uses.

The daemon clears up its own mounts and instances when it starts. Beyond that there are scratch
directories of a doctor that was killed, and the directories of instances that FlatImage never
removes: APP/<build>/instance/<PID>, perhaps with mounts. The directories above them can be written
by others, so each step is opened by descriptor, never following a link, and has to be the user's.
"""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from fimd.base.errors import FimError
from fimd.base.paths import RuntimeTree
from fimd.base.removal import remove_tree
from fimd.mounts.table import below
from fimd.mounts.unmount import detach

log = structlog.get_logger(__name__)

_SCRATCH: Final = "doctor."
_LOST: Final = "lost."
_AGE: Final = 300.0
"""Seconds after which what is named like a scratch directory is nobody's any more."""
_BUILD: Final = re.compile(r"[0-9A-Za-z]+_[0-9A-Za-z]+")
_PID: Final = re.compile(r"[1-9][0-9]{0,9}")


async def remove_leftovers(tree: RuntimeTree) -> int:
    """Unmount and remove them; return how many directories that were."""
    app = str(tree.root.parent)
    removed = 0
    for name in [*_scratch(tree), *_dead_instances(app)]:
        path = os.path.join(app, name)
        try:
            for mount in reversed(below(path)):
                await detach(mount.mount_point)
            await asyncio.to_thread(_remove, app, name)
        except (FimError, OSError) as error:
            log.warning("leftover could not be removed", path=path, reason=str(error))
        else:
            log.warning("leftover removed", path=path)
            removed += 1
    return removed + await asyncio.to_thread(_remove_lost, tree)


def _remove_lost(tree: RuntimeTree) -> int:
    """Remove what was set aside, as far as that can be; return how much of it there was."""
    removed = 0
    for directory in (tree.root, tree.lost):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(descriptor):
                if directory == tree.root and not name.startswith(_LOST):
                    continue
                try:
                    remove_tree(descriptor, name)
                except OSError as error:
                    path = str(directory / name)
                    log.warning("leftover could not be removed", path=path, reason=str(error))
                else:
                    removed += 1
        finally:
            os.close(descriptor)
    return removed


def _scratch(tree: RuntimeTree) -> list[str]:
    before = time.time() - _AGE
    names = [name for name in os.listdir(tree.root) if name.startswith(_SCRATCH)]
    return [
        os.path.join(tree.root.name, name)
        for name in names
        if os.lstat(tree.root / name).st_mtime < before
    ]


def _dead_instances(app: str) -> list[str]:
    """Return the directories, below APP, of FlatImage's instances whose processes have ended."""
    found = []
    for build in filter(_BUILD.fullmatch, os.listdir(app)):
        with suppress(OSError), _own(app, build, "instance") as descriptor:
            pids = filter(_PID.fullmatch, os.listdir(descriptor))
            dead = [pid for pid in pids if not os.path.exists(f"/proc/{pid}")]
            found += [os.path.join(build, "instance", pid) for pid in dead]
    return found


def _remove(app: str, name: str) -> None:
    """Remove a directory of the user's own. Raises OSError."""
    above, _, last = name.rpartition("/")
    with _own(app, *above.split("/")) as parent:
        remove_tree(parent, last)


@contextmanager
def _own(top: str, *names: str) -> Iterator[int]:
    """Open a directory step by step, each the user's own and none a link. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    opened = [os.open(top, flags)]
    try:
        for name in names:
            opened.append(os.open(name, flags | os.O_NOFOLLOW, dir_fd=opened[-1]))
            if os.fstat(opened[-1]).st_uid != os.getuid():
                raise PermissionError(1, "it is another user's", name)
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)
