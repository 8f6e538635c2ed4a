"""Emptying an upper directory in one step, once a complete layer holds what was in it.

`root/` trades places with a new, empty directory, which then is removed at leisure. Where that
can't be (it is a mount point), its entries are removed one by one: every state in between shows
the same tree, since the layer below has whatever is gone.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from fimd.base.system_calls import RENAME_EXCHANGE, rename

_ASIDE: Final = re.compile(r"fimd-upper-[0-9a-f]{16}")
_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NOT_MOVABLE: Final = (errno.EBUSY, errno.EXDEV, errno.EROFS)


class Aside:
    """An upper directory that was set aside; `path` is None where it had to stay in its place.

    It is locked, so that nobody takes it for one whose remover has died, until it is closed.
    """

    def __init__(self, root: str, path: str | None, lock: int) -> None:
        self._root = root
        self._lock = lock
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    @property
    def where(self) -> str:
        """The directory that holds what was in the upper."""
        return self.path or self._root

    def kept(self) -> list[str]:
        """Return the paths that this user can't remove, since another's directory holds them."""
        found: list[str] = []
        for directory, _, _ in os.walk(self.where):
            facts = os.lstat(directory)
            if facts.st_uid != os.geteuid() and not os.access(directory, os.W_OK | os.X_OK):
                found += (entry.path for entry in os.scandir(directory))
        return found

    def put_back(self) -> None:
        """Make it the upper directory again, where nobody has used the new one."""
        if self.path is not None:
            _trade(self.path, self._root)
            os.rmdir(self.path)

    def remove(self, is_done: Callable[[bytes], bool] | None = None) -> None:
        """Remove it; in its place only those entries of which `is_done` says so."""
        if self.path is not None:
            remove_tree(self.path)
        else:
            _remove_below(os.fsencode(self._root), b"", is_done or (lambda _path: True))


def set_aside(data: str) -> Aside:
    """Replace a data directory's `root/` by an empty directory with the same attributes."""
    root = os.path.realpath(os.path.join(data, "root"))
    path = os.path.join(data, "tmp", f"fimd-upper-{secrets.token_hex(8)}")
    lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.mkdir(path, 0o700)
        try:
            _copy_attributes(root, path)
            _trade(path, root)
        except OSError as error:
            os.rmdir(path)
            if error.errno not in _NOT_MOVABLE:
                raise
            return Aside(root, None, lock)
        for directory in (os.path.join(data, "tmp"), os.path.dirname(root)):
            _sync(directory)
    except BaseException:
        os.close(lock)
        raise
    return Aside(root, path, lock)


def _copy_attributes(source: str, target: str) -> None:
    """The root's own attributes are a part of the tree that a user sees."""
    facts = os.stat(source)
    if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, facts.st_uid, facts.st_gid)
    os.chmod(target, stat.S_IMODE(facts.st_mode))
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _trade(first: str, second: str) -> None:
    """Have two directories trade places; in one step where the filesystem can."""
    try:
        rename(os.fsencode(first), os.fsencode(second), -1, -1, RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        between = f"{first}-new"
        os.rename(first, between)
        os.rename(second, first)
        os.rename(between, second)


def remove_leftovers(data: str) -> int:
    """Remove what interrupted commits had set aside; return how many uppers that were.

    For the holder of the data directory's lock. Only what a complete layer holds is ever there.
    """
    tmp = os.path.join(data, "tmp")
    found = [name for name in os.listdir(tmp) if _ASIDE.fullmatch(name.removesuffix("-new"))]
    removed = 0
    for name in found:
        path = os.path.join(tmp, name)
        root = os.path.join(data, "root")
        if name.endswith("-new") and not os.path.lexists(root):
            os.rename(path, root)
        elif not _is_being_removed(path):
            removed += remove_tree(path)
    return removed


def _is_being_removed(path: str) -> bool:
    """Whether the commit that set it aside is at work yet."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # it has a mode that does not let us look
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def remove_tree(path: str) -> bool:
    """Remove a directory with all that is in it, whatever modes it has; tell whether it is gone.

    What is in directories of another user's stays.
    """
    with suppress(PermissionError):
        shutil.rmtree(path)
        return True
    with suppress(PermissionError):
        os.chmod(path, stat.S_IRWXU)
    for directory, names, _ in os.walk(path):
        for name in names:
            below = os.path.join(directory, name)
            with suppress(PermissionError):
                if not os.path.islink(below):
                    os.chmod(below, stat.S_IRWXU)
    shutil.rmtree(path, onerror=_pass_over)
    return not os.path.lexists(path)


def _pass_over(
    _function: object, _path: object, error: tuple[object, BaseException, object]
) -> None:
    if not isinstance(error[1], PermissionError) and not _is_not_empty(error[1]):
        raise error[1]


def _is_not_empty(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ENOTEMPTY


def _remove_below(top: bytes, directory: bytes, is_done: Callable[[bytes], bool]) -> None:
    with os.scandir(os.path.join(top, directory)) as found:
        entries = list(found)
    for entry in entries:
        path = os.path.join(directory, entry.name)
        if entry.is_dir(follow_symlinks=False):
            _remove_below(top, path, is_done)
            with suppress(OSError):  # something is left in it
                if is_done(path):
                    os.rmdir(entry.path)
        elif is_done(path):
            os.unlink(entry.path)


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
