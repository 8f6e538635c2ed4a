"""The runtime tree: where a user's mounts and instances live, and who may touch it.

    /tmp/fim/app/         1777, like /tmp (FIM_DIR_GLOBAL moves /tmp/fim)
      u<uid>/             0700, the user's own
        bin/, sbin/       programs that every sandbox finds on its PATH
        layers/<id>/      mount points of layers
        stacks/<id>/      the shared writable view of one data directory
        instance/<pid>/   one directory per running instance
        bus               the daemon's own socket (fimd.bus.peers)
        state/            the daemon's own: lock, log, records, and a pipe for each program that
                          serves a mount
        lost/             what made no sense, or could not be removed

What is mounted there is seen in the user's namespace alone (fimd.mounts.namespace). Inside of a
sandbox the tree is covered but for the instance's own directory and the programs, so that nothing
in it was written by anybody but this user, outside of a sandbox.

Another user can own what lies in a directory like /tmp, so each step is opened by descriptor and
checked; a link is never followed.
"""

import fcntl
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from fimd.base.errors import AccessDeniedError, BusyError
from fimd.base.places import DEFAULT_GLOBAL, find_global, runtime_global, socket_path

log = structlog.get_logger(__name__)

_DIRECTORIES = ("bin", "sbin", "layers", "stacks", "instance", "lost")
_RECORDS = ("output", "layers", "stacks", "instance")
_KEPT_OF_A_NAME = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WAY_OUT = "set FIM_DIR_GLOBAL to a directory of your own, or ask the administrator to remove it"


def _enter(parent: int, name: str, path: str, mode: int) -> int:
    """Open (or make) the directory `name` below `parent`, with exactly `mode`; never a link."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
        created = True
    except FileExistsError:
        created = False
    try:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except PermissionError:
            _unlock(parent, name, mode)
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise AccessDeniedError(
            f"{path} is not a directory that can be used ({error.strerror}): {_WAY_OUT}"
        ) from error
    try:
        if created:
            os.fchmod(descriptor, mode)  # whatever the umask made of it
        _check_owner(descriptor, path, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlock(parent: int, name: str, mode: int) -> None:
    """Give a directory of the user's own its mode: programs see it, and may have locked it."""
    held = os.open(name, _HELD, dir_fd=parent)
    try:
        if os.fstat(held).st_uid == os.getuid():
            os.chmod(f"/proc/self/fd/{held}", mode)
    finally:
        os.close(held)


def _enter_own(parent: int, name: str, path: str) -> int:
    """Open (or make) a directory in one that is the user's own; what else is there is set aside."""
    try:
        return _enter(parent, name, os.path.join(path, name), 0o700)
    except AccessDeniedError as error:
        aside = f"lost.{name}.{time.time_ns()}"
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
        log.warning("set aside", path=os.path.join(path, name), lost=aside, reason=str(error))
        return _enter(parent, name, os.path.join(path, name), 0o700)


def _check_owner(descriptor: int, path: str, mode: int) -> None:
    facts = os.fstat(descriptor)
    shared = bool(mode & stat.S_ISVTX)
    if facts.st_uid != os.getuid() and not (shared and facts.st_uid == 0):
        raise AccessDeniedError(f"{path} belongs to user {facts.st_uid}: {_WAY_OUT}")
    if stat.S_IMODE(facts.st_mode) == mode:
        return
    if facts.st_uid == os.getuid():
        os.fchmod(descriptor, mode)
    elif not facts.st_mode & stat.S_ISVTX and facts.st_mode & 0o022:
        raise AccessDeniedError(
            f"{path} can be changed by anyone (mode {facts.st_mode & 0o7777:o}): {_WAY_OUT}"
        )


@dataclass(frozen=True)
class RuntimeTree:
    """The user's part of the runtime tree, made and checked by `open`."""

    root: Path

    @classmethod
    def open(cls, global_directory: str | None = None) -> Self:
        """Make the tree where it is missing, and check what is there.

        Its place is `global_directory`, or what `find_global` says; where that is the default and
        belongs to another user, it is in XDG_RUNTIME_DIR. Raises AccessDeniedError where another
        user could change it.
        """
        base = os.path.abspath(global_directory or find_global())
        try:
            return cls._open(base)
        except AccessDeniedError as error:
            instead = runtime_global() if base == DEFAULT_GLOBAL else None
            if instead is None:
                raise
            log.warning("the runtime tree is elsewhere", path=instead, reason=str(error))
            return cls._open(instead)

    @classmethod
    def _open(cls, base: str) -> Self:
        try:
            parent = os.open(os.path.dirname(base), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise AccessDeniedError(
                f"{os.path.dirname(base)} can't be entered ({error.strerror}): {_WAY_OUT}"
            ) from error
        path = base
        opened = [parent]
        try:
            steps = [(os.path.basename(base), 0o1777), ("app", 0o1777), (f"u{os.getuid()}", 0o700)]
            for depth, (name, mode) in enumerate(steps):
                path = path if depth == 0 else os.path.join(path, name)
                opened.append(_enter(opened[-1], name, path, mode))
            for name in _DIRECTORIES:
                os.close(_enter_own(opened[-1], name, path))
            opened.append(_enter_own(opened[-1], "state", path))
            for name in _RECORDS:
                os.close(_enter_own(opened[-1], name, os.path.join(path, "state")))
        except OSError as error:
            raise AccessDeniedError(f"{path}: {error.strerror}: {_WAY_OUT}") from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return cls(Path(path))

    @property
    def global_directory(self) -> Path:
        """FIM_DIR_GLOBAL: what the tree of every user lies in."""
        return self.root.parent.parent

    @property
    def programs(self) -> Path:
        """FIM_DIR_APP_BIN."""
        return self.root / "bin"

    @property
    def applets(self) -> Path:
        """FIM_DIR_APP_SBIN."""
        return self.root / "sbin"

    @property
    def socket(self) -> Path:
        """The daemon's own socket."""
        return Path(socket_path(str(self.global_directory)))

    @property
    def starting(self) -> Path:
        """What clients lock while they start the daemon."""
        return self.root / "starting"

    def layers(self, mount_id: str) -> Path:
        """Return the mount point of layers that one process serves."""
        return self.root / "layers" / mount_id

    def stack(self, stack_id: str) -> Path:
        """Return the directory of a stack."""
        return self.root / "stacks" / stack_id

    def instance(self, pid: int) -> Path:
        """Return the directory of an instance."""
        return self.root / "instance" / str(pid)

    @property
    def state(self) -> Path:
        """The daemon's own directory."""
        return self.root / "state"

    @property
    def outputs(self) -> Path:
        """Where the pipes are of programs that serve mounts."""
        return self.state / "output"

    def records(self, kind: str) -> Path:
        """Return the directory of the records of layers, stacks or instances."""
        return self.state / kind

    def record(self, kind: str, name: str) -> str:
        """Return the record of one of them, by its identifier."""
        return str(self.records(kind) / f"{name}.json")

    def found(self, kind: str, expected: re.Pattern[str]) -> set[str]:
        """Return the names of the directories of a kind; what else is there is set aside."""
        names = set()
        for entry in list(os.scandir(self.root / kind)):
            if expected.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                names.add(entry.name)
            else:
                self.set_aside(Path(entry.path))
        return names

    def set_aside(self, path: Path) -> None:
        """Move to lost/ what can't be removed or understood, so that it is nobody's obstacle.

        Nothing happens where it is gone, and what can't even be moved is told.
        """
        target = self.lost / f"{path.parent.name}-{path.name[:_KEPT_OF_A_NAME]}-{time.time_ns()}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("can't be set aside", path=str(path), reason=error.strerror)
            return
        log.warning("set aside", path=str(path), lost=str(target))

    @property
    def lost(self) -> Path:
        """What made no sense, or could not be removed."""
        return self.root / "lost"

    def hold(self) -> int:
        """Keep systemd-tmpfiles from ageing the tree, until the returned descriptor is closed.

        It passes over a directory that somebody has locked (tmpfiles.d(5)).
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return descriptor

    def lock(self) -> int:
        """Take the tree for this process, until the returned descriptor is closed.

        Raises BusyError where another daemon has it: two would undo each other's mounts.
        """
        for path in (self.root / "lock", self.state / "lock"):  # the first is fimd 0.1's
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                self.set_aside(path)
        if (self.root / "lock").exists():
            os.close(self._take(self.root / "lock"))
        descriptor = self._take(self.state / "lock")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    def _take(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise BusyError(
                f"another fimd (process {holder}) owns {self.root}: use that, or end it by "
                f"'fimctl shutdown'"
            ) from None
        return descriptor

    @property
    def is_being_left(self) -> bool:
        """Whether who has the lock is about to give it back."""
        locks = (self.root / "lock", self.state / "lock")
        return any(lock.stat().st_size == 0 for lock in locks if lock.exists())
