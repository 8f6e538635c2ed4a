"""The runtime tree: where a user's mounts and instances live, and who may touch it.

    /tmp/fim/app/         1777, like /tmp (FIM_DIR_GLOBAL moves /tmp/fim)
      u<uid>/             0700, the user's own
        bin/, sbin/       programs that every sandbox finds on its PATH
        layers/<id>/      one mount per distinct layer
        stacks/<id>/      the shared writable view of one data directory
        instance/<pid>/   one directory per running instance
        output/           a pipe for each program that serves a mount

Another user can own what lies in a directory like /tmp, so each step is opened by descriptor and
checked; a link is never followed.
"""

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fimd.errors import AccessDeniedError, BusyError

DEFAULT_GLOBAL = "/tmp/fim"  # noqa: S108 - the place that FlatImage's users know; checked below
_WAY_OUT = "set FIM_DIR_GLOBAL to a directory of your own, or ask the administrator to remove it"


def _enter(parent: int, name: str, path: str, mode: int) -> int:
    """Open (or make) the directory `name` below `parent`, with exactly `mode`; never a link."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
        created = True
    except FileExistsError:
        created = False
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
        )
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

        Raises AccessDeniedError where another user could change it.
        """
        base = os.path.abspath(
            global_directory or os.environ.get("FIM_DIR_GLOBAL") or DEFAULT_GLOBAL
        )
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
            for name in ("bin", "sbin", "layers", "stacks", "instance", "output"):
                os.close(_enter(opened[-1], name, os.path.join(path, name), 0o700))
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

    def layers(self, mount_id: str) -> Path:
        """Return the mount point of layers that one process serves."""
        return self.root / "layers" / mount_id

    def stack(self, stack_id: str) -> Path:
        """Return the directory of a stack."""
        return self.root / "stacks" / stack_id

    def instance(self, pid: int) -> Path:
        """Return the directory of an instance."""
        return self.root / "instance" / str(pid)

    def hold(self) -> int:
        """Keep systemd-tmpfiles from ageing the tree, until the returned descriptor is closed.

        It passes over a directory that somebody has locked (tmpfiles.d(5)).
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return descriptor

    def lock(self) -> int:
        """Take the tree for this process, until the returned descriptor is closed.

        Raises BusyError where another daemon has it: two would undo each other's mounts, and each
        session bus would let one own the name.
        """
        path = self.root / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise BusyError(
                f"another fimd (process {holder}) owns {self.root}, perhaps on another session "
                f"bus: use that bus, or end that process"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    @property
    def is_being_left(self) -> bool:
        """Whether who has the lock is about to give it back."""
        return (self.root / "lock").stat().st_size == 0
