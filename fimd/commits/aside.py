"""Emptying an upper directory in one step, once a complete layer holds what was in it.

`root/` trades places with a new, empty directory, which then is removed at leisure. Where that
can't be (it is a mount point), its entries are removed one by one: every state in between shows
the same tree, since the layer below has whatever is gone.

All of it is by the descriptors of an open data directory, and for a process in a jail.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, Self

from fimd.base.errors import BusyError
from fimd.base.removal import empty_directory, remove_tree
from fimd.base.system_calls import RENAME_EXCHANGE, rename
from fimd.commits.lost import lose, new_lost_name
from fimd.commits.opened import DIRECTORY, OpenData
from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.write import Entry

_ASIDE: Final = re.compile(r"fimd-upper-[0-9a-f]{16}")
_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NOT_MOVABLE: Final = (errno.EBUSY, errno.EXDEV, errno.EROFS)


class Aside:
    """An upper directory that was set aside; `name` is None where it had to stay in its place.

    It is locked, so that nobody takes it for one whose remover has died, until it is closed.
    """

    def __init__(self, data: OpenData, name: str | None, lock: int) -> None:
        self._data = data
        self._lock = lock
        self._lost = new_lost_name()
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    @property
    def directory(self) -> int:
        """A descriptor of what was the upper."""
        return self._lock

    @property
    def where(self) -> str:
        """What messages call the directory that holds what was in the upper."""
        if self.name is None:
            return self._data.root
        return os.path.join(self._data.path, "tmp", self.name)

    def kept(self, scanned: Iterable[Entry]) -> Iterator[str]:
        """Yield what can't be removed and will be lost: what another user's directories hold."""
        where = self._data.root
        if self.name is not None:
            where = os.path.join(self._data.path, "tmp", self._lost)
        with Beneath(self._lock) as beneath:
            closed = {
                entry.path
                for entry in scanned
                if entry.is_directory and not self._may_be_emptied(beneath, entry)
            }
        for entry in scanned:
            if entry.path and entry.path.rpartition(b"/")[0] in closed:
                yield os.path.join(where, os.fsdecode(entry.path))

    def _may_be_emptied(self, beneath: Beneath, entry: Entry) -> bool:
        if entry.uid == os.geteuid():
            return True
        try:
            parent, name = beneath.parent(entry.path)
        except OSError:
            return True  # it is gone
        return os.access(
            name, os.W_OK | os.X_OK, dir_fd=parent, effective_ids=True, follow_symlinks=False
        )

    def put_back(self) -> None:
        """Make it the upper directory again, where nobody has used the new one."""
        if self.name is not None:
            _trade(self._data, self.name)
            os.rmdir(self.name, dir_fd=self._data.tmp)

    def remove(self, done: Iterable[Entry] | None = None) -> None:
        """Remove it; in its place only the entries that are `done`, which a scan has found.

        What can't be removed is kept as lost.
        """
        if self.name is not None:
            try:
                remove_tree(self._data.tmp, self.name)
            except OSError:
                lose(self._data, self.name, self._lost)
        elif done is None:
            with suppress(PermissionError):
                empty_directory(self._lock)
        else:
            _remove_entries(self._lock, done)


def set_aside(data: OpenData) -> Aside:
    """Replace a data directory's upper by an empty directory with the same attributes."""
    name = f"fimd-upper-{secrets.token_hex(8)}"
    lock = data.open_upper()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.mkdir(name, 0o700, dir_fd=data.tmp)
        try:
            _copy_attributes(lock, data.tmp, name)
            _trade(data, name)
        except OSError as error:
            os.rmdir(name, dir_fd=data.tmp)
            if error.errno not in _NOT_MOVABLE:
                raise
            return Aside(data, None, lock)
        found = os.stat(name, dir_fd=data.tmp, follow_symlinks=False)
        if not os.path.samestat(found, os.fstat(lock)):
            _trade(data, name)
            os.rmdir(name, dir_fd=data.tmp)
            raise BusyError(f"{data.root} was exchanged by a program just now: end it, try again")
        for directory in (data.tmp, data.holder):
            os.fsync(directory)
    except BaseException:
        os.close(lock)
        raise
    return Aside(data, name, lock)


def _copy_attributes(source: int, directory: int, name: str) -> None:
    """The root's own attributes are a part of the tree that a user sees."""
    facts = os.fstat(source)
    target = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        made = os.fstat(target)
        if (facts.st_uid, facts.st_gid) != (made.st_uid, made.st_gid):
            os.chown(target, facts.st_uid, facts.st_gid)
        if facts.st_mode != made.st_mode:
            os.chmod(target, stat.S_IMODE(facts.st_mode))
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    finally:
        os.close(target)


def _trade(data: OpenData, name: str) -> None:
    """Have the upper and a directory in tmp/ trade places; in one step where that can be."""
    try:
        names = (os.fsencode(name), os.fsencode(data.name))
        rename(*names, data.tmp, data.holder, RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        os.rename(name, f"{name}-new", src_dir_fd=data.tmp, dst_dir_fd=data.tmp)
        os.rename(data.name, name, src_dir_fd=data.holder, dst_dir_fd=data.tmp)
        os.rename(f"{name}-new", data.name, src_dir_fd=data.tmp, dst_dir_fd=data.holder)


def remove_leftovers(data: OpenData) -> tuple[int, list[str]]:
    """Remove what interrupted commits had set aside; return how many uppers that were.

    What can't be removed is kept as lost, and its paths are returned too. For the holder of the
    data directory's lock. Only what a complete layer holds is ever there.
    """
    removed, lost = 0, []
    for name in os.listdir(data.tmp):
        if not _ASIDE.fullmatch(name.removesuffix("-new")):
            continue
        if name.endswith("-new") and not _has_upper(data):
            os.rename(name, data.name, src_dir_fd=data.tmp, dst_dir_fd=data.holder)
        elif not _is_being_removed(data.tmp, name):
            try:
                remove_tree(data.tmp, name)
                removed += 1
            except OSError:
                lost.append(lose(data, name))
    return removed, lost


def _has_upper(data: OpenData) -> bool:
    try:
        os.stat(data.name, dir_fd=data.holder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_being_removed(directory: int, name: str) -> bool:
    """Whether the commit that set it aside is at work yet."""
    try:
        lock = os.open(name, DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # it is no directory, or has a mode that does not let us look
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove_entries(top: int, entries: Iterable[Entry]) -> None:
    """Remove the entries that a scan has found, those in a directory before it."""
    with Beneath(top) as beneath:
        for entry in sorted(entries, key=lambda entry: entry.path.count(b"/"), reverse=True):
            if not entry.path:
                continue
            with suppress(FileNotFoundError):
                parent, name = beneath.parent(entry.path)
                if entry.is_directory:
                    with suppress(OSError):  # something is left in it
                        os.rmdir(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)
