"""Trees by what they hold, in the user's cache: each is made once, and the least used go first.

    $XDG_CACHE_HOME/fimd/layers/    0700, as the directory that it lies in
      lock                          held by who adds or removes a tree
      sha256-…/                     0700: no other user comes to what is in it, whatever its bits
        tree/                       what it is about
        size                        how many bytes it takes; held by who uses it, of its last use

A tree is made under another name, written to the disk and then renamed, so what has its own name
is whole. No sandbox shows any of it (fimd.launch.cover), and none of it is used if it is not the
user's own, or lies where a link leads that programs could exchange.

For processes in the user's namespace, who may remove what belongs to subordinate ids.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from fimd.base.errors import AccessDeniedError, FimError, UnsupportedError
from fimd.base.removal import remove_tree
from fimd.base.system_calls import sync_filesystem

log = structlog.get_logger(__name__)

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN_MODE: Final = 0o700
_UNFINISHED: Final = "."
"""What names begin with of trees that are being made or removed."""
_TREE: Final = "tree"
_SIZE: Final = "size"
_LOCK: Final = "lock"
_DIGITS: Final = 20
"""Of a size, at most."""
_ELSEWHERE: Final = "set XDG_CACHE_HOME to another directory"


def place() -> str:
    """Return where it is for this user."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    cache = given if given.startswith("/") else os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "fimd", "layers")


def check_place() -> str:
    """Return `place`, if no link on the way could be exchanged by a program in a sandbox.

    Raises AccessDeniedError. For a process outside of the namespace.
    """
    path = whole = place()
    while os.getuid() != 0 and path != "/":
        path = os.path.dirname(path)
        if os.path.islink(path) and os.lstat(path).st_uid == os.getuid():
            raise AccessDeniedError(
                f"{whole} lies behind the link {path}, which programs in sandboxes might exchange: "
                f"set XDG_CACHE_HOME to the directory itself"
            )
    return whole


def provide() -> None:
    """Have it there, so that no program that sees a home can make one of its own.

    Where it can't be made, it can't be used either, which who needs it is told.
    """
    try:
        with Store(check_place()):
            pass
    except (FimError, OSError) as error:
        log.info("there is no store", reason=str(error))


def is_empty() -> bool:
    """Tell whether there is nothing in it to be pruned."""
    try:
        return set(os.listdir(place())) <= {_LOCK}
    except OSError:
        return True


def prune(arguments: dict[str, Any], _files: list[int]) -> int:
    """Remove what nobody uses from the store at a path, by this process; return how much it was."""
    with Store(arguments["path"]) as store:
        return store.prune()


@dataclass(frozen=True)
class _Kept:
    """A tree that is there."""

    used: int
    """When it was used last, in nanoseconds since 1970."""
    name: str
    size: int


class Store:
    """A store that is open. A context manager."""

    def __init__(self, path: str, *, most: int = 0) -> None:
        """`most` is how many bytes its trees may take. Raises AccessDeniedError."""
        self.path = path
        self._most = most
        try:
            self._directory = _open(path)
        except OSError as error:
            raise AccessDeniedError(f"{path}: {error.strerror}: {_ELSEWHERE}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who adds or removes; wait for who does."""
        lock = os.open(_LOCK, _FILE | os.O_CREAT, 0o600, dir_fd=self._directory)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in os.listdir(self._directory):
                if name.startswith(_UNFINISHED):
                    remove_tree(self._directory, name)
            yield
        finally:
            os.close(lock)

    def __contains__(self, name: str) -> bool:
        """Whether a tree is there."""
        try:
            os.close(self._open_size(name))
        except FileNotFoundError:
            return False
        return True

    def add(self, name: str, size: int, fill: Callable[[str], None]) -> None:
        """Have a tree made at the path that `fill` is called with. For who is `changing` it.

        `size` is how many bytes it takes at most. Raises UnsupportedError where there is no room,
        and what `fill` does.
        """
        self._make_room(size)
        new = f"{_UNFINISHED}{secrets.token_hex(8)}"
        os.mkdir(new, _OWN_MODE, dir_fd=self._directory)
        try:
            fill(os.path.join(self.path, new, _TREE))
            at = os.open(new, _DIRECTORY, dir_fd=self._directory)
            try:
                with open(os.open(_SIZE, _FILE | os.O_CREAT, 0o600, dir_fd=at), "w") as file:
                    file.write(str(size))
                sync_filesystem(at)
            finally:
                os.close(at)
            os.rename(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)
        except BaseException:
            remove_tree(self._directory, new)
            raise

    def use(self, name: str) -> tuple[int, int]:
        """Open a tree (O_PATH), and what keeps it from being removed as long as it is open.

        Raises FimError where it is not there any more.
        """
        try:
            size = self._open_size(name)
            fcntl.flock(size, fcntl.LOCK_SH)
            os.utime(size)
            entry = os.open(name, _DIRECTORY, dir_fd=self._directory)
            try:
                _check(entry, os.path.join(self.path, name))
                found = os.stat(_SIZE, dir_fd=entry, follow_symlinks=False)
                if not os.path.samestat(found, os.fstat(size)):
                    raise FileNotFoundError
                tree = os.open(_TREE, os.O_PATH | _DIRECTORY, dir_fd=entry)
            finally:
                os.close(entry)
        except OSError as error:
            raise FimError(f"{os.path.join(self.path, name)} has just gone: try again") from error
        return tree, size

    def prune(self) -> int:
        """Remove the trees that nobody uses; return how many."""
        with self.changing():
            return sum(self._remove(kept.name) for kept in self._kept())

    def _open_size(self, name: str) -> int:
        return os.open(f"{name}/{_SIZE}", _FILE, dir_fd=self._directory)

    def _kept(self) -> list[_Kept]:
        """Return what is there, the least used first."""
        found = []
        for name in os.listdir(self._directory):
            if name == _LOCK or name.startswith(_UNFINISHED):
                continue
            try:
                with open(self._open_size(name)) as file:
                    facts, said = os.fstat(file.fileno()), file.read(_DIGITS)
            except OSError:  # nothing that this has made
                found.append(_Kept(0, name, 0))
                continue
            found.append(_Kept(facts.st_mtime_ns, name, int(said) if said.isdecimal() else 0))
        return sorted(found, key=lambda kept: kept.used)

    def _make_room(self, size: int) -> None:
        """Remove the least used until another one has room, by the bound and on the disk."""
        kept = self._kept()
        left = sum(one.size for one in kept)
        for one in kept:
            if left + size <= self._most and size <= self._free():
                return
            if self._remove(one.name):
                left -= one.size
        if left + size > self._most:
            raise UnsupportedError(
                f"{self.path} may take {self._most >> 20} MiB, and {(left + size) >> 20} MiB are "
                "in use or needed: raise the setting 'store'"
            )
        if size > self._free():
            raise UnsupportedError(
                f"{self.path} needs {size >> 20} MiB, and the disk has {self._free() >> 20} MiB: "
                f"make room there, or {_ELSEWHERE}"
            )

    def _free(self) -> int:
        facts = os.fstatvfs(self._directory)
        return facts.f_bavail * facts.f_frsize

    def _remove(self, name: str) -> bool:
        """Remove a tree, unless somebody uses it; tell whether it was removed."""
        try:
            size = self._open_size(name)
        except OSError:
            size = -1
        try:
            if size >= 0:
                fcntl.flock(size, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old = f"{_UNFINISHED}{secrets.token_hex(8)}"
            os.rename(name, old, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BlockingIOError:
            return False
        finally:
            if size >= 0:
                os.close(size)
        remove_tree(self._directory, old)
        return True


def _open(path: str) -> int:
    """Open its directory, which is made where it is missing. Raises OSError, AccessDeniedError."""
    cache, *own = path.rsplit("/", 2)
    os.makedirs(cache, _OWN_MODE, exist_ok=True)
    opened = [os.open(os.path.realpath(cache), os.O_PATH | _DIRECTORY)]
    try:
        for name in own:
            with suppress(FileExistsError):
                os.mkdir(name, _OWN_MODE, dir_fd=opened[-1])
            opened.append(os.open(name, _DIRECTORY, dir_fd=opened[-1]))
            _check(opened[-1], path)
        return opened.pop()
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _check(descriptor: int, path: str) -> None:
    """Have a directory be the user's own. Raises AccessDeniedError where it is another's."""
    facts = os.fstat(descriptor)
    if facts.st_uid != os.geteuid():
        raise AccessDeniedError(f"{path} belongs to another user: {_ELSEWHERE}")
    if stat.S_IMODE(facts.st_mode) != _OWN_MODE:
        os.fchmod(descriptor, _OWN_MODE)
