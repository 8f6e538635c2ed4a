"""Where in an image's tree the mounts of a sandbox lie, found as in a chroot of it.

Bubblewrap looks for a target by itself, from outside of the tree: a link in it ends the start
(`/etc/resolv.conf -> ../run/...`), or leads to the host's own files. So each target is worked out
before, by a process whose root is the tree, as the path without links that bubblewrap will find.
What is missing of it is made there, in the tree; on the host nothing is ever made.
"""

import json
import os
import resource
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fimd.base.errors import UnsupportedError
from fimd.base.places import is_below
from fimd.launch import accounts
from fimd.launch.bindings import Bind
from fimd.mounts.steps import Step
from fimd.trees import placeholders

WORKER: Final = "fimd.launch.targets"
_SECONDS: Final = 10.0
"""In which a tree says where the mounts of a sandbox lie in it."""
_MOST_LINKS: Final = 40
"""As many as the kernel follows (path_resolution(7))."""
_DEV: Final = {
    **dict.fromkeys(("null", "zero", "full", "random", "urandom", "tty", "console"), stat.S_IFCHR),
    **dict.fromkeys(("pts", "shm"), stat.S_IFDIR),
    **dict.fromkeys(("fd", "stdin", "stdout", "stderr", "core", "ptmx"), stat.S_IFLNK),
}
"""What there is in the /dev that bubblewrap makes."""


@dataclass(frozen=True)
class Seen:
    """A file as it is in the user's namespace; numbers are 0 where there is none."""

    path: str
    device: int
    inode: int


_EMPTY: Final = ("--dev", "--tmpfs")
"""Options that show a file system of the sandbox's own."""


_Facts = tuple[str, int, int]
"""A file's path without links, device and number."""
_NO_FACTS: Final = ("", 0, 0)


class _UnfitError(Exception):
    """Nothing can be shown there, for the reason that this says."""


@dataclass(frozen=True)
class _Mount:
    """What is mounted somewhere in the tree by the time that a target is looked for."""

    descriptor: int = -1
    """A directory, to look below; -1 where there is nothing below, or nothing to look at."""
    option: str = ""
    is_directory: bool = True

    @property
    def is_tree(self) -> bool:
        """Whether it is the image's own tree, in which something may be made."""
        return not self.option


@dataclass(frozen=True)
class Found:
    """What the user's namespace and an image's tree have of what a start asks for."""

    binds: tuple[Bind, ...]
    """The mounts, with targets as they are in the tree."""
    warnings: tuple[str, ...]
    """One for each that is left out."""
    seen: tuple[Seen, ...]
    accounts: Mapping[str, str] = field(default_factory=dict)
    """The tree's own files of fimd.launch.accounts, by their names."""
    directories: frozenset[str] = frozenset()
    """Which of those that were asked for the sandbox has."""


@contextmanager
def finding(
    binds: Sequence[Bind], looks: Sequence[str], directories: Sequence[str]
) -> Iterator[Step]:
    """Yield the step that looks for the targets of mounts in a tree, and at the files `looks`.

    The tree is the argument `root`; `directories` may be there once all is mounted.
    """
    listed = os.memfd_create("binds", os.MFD_CLOEXEC)
    try:
        words = [[bind.option, bind.source, bind.target] for bind in binds]
        os.write(listed, json.dumps(words).encode())
        asked = {"looks": looks, "directories": directories}
        yield Step(f"{WORKER}:call", "targets", _SECONDS, asked, (listed,), again=True)
    finally:
        os.close(listed)


def found(binds: Sequence[Bind], looks: Sequence[str], answer: dict[str, Any]) -> Found:
    """Return what the step has found.

    Raises UnsupportedError where a mount can't be that is needed.
    """
    shown, warnings = [], []
    for bind, (target, reason, facts) in zip(binds, answer["targets"], strict=True):
        if target is not None:
            real, device, inode = facts
            shown.append(replace(bind, target=target, real=real, identity=(device, inode)))
            continue
        what = bind.source or bind.option.removeprefix("--")
        if bind.is_needed:
            raise UnsupportedError(
                f"{what} can't be shown at {bind.target} ({reason or 'it is gone'}), and without "
                "it nothing starts: mend that in the image"
            )
        if reason:
            warnings.append(f"{what} is not shown at {bind.target}: {reason}")
    seen = (Seen(path, *facts) for path, facts in zip(looks, answer["seen"], strict=True))
    there = frozenset(answer["directories"])
    return Found(tuple(shown), tuple(warnings), tuple(seen), answer["accounts"], there)


def call(arguments: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Do `resolve` in a process of the user's namespace, of a list in a file."""
    with os.fdopen(files[0], "rb") as file:
        file.seek(0)
        binds = json.load(file)
    seen = [_look(path) for path in arguments["looks"]]
    with ExitStack() as opened:
        root = os.open(arguments["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, root)
        opened.enter_context(_moved_back())
        targets, view = resolve(root, binds, opened)
        return {
            "targets": targets,
            "seen": seen,
            # only now, in the chroot, do links lead where they lead inside
            "accounts": {name: accounts.read(path) for name, path in accounts.PLACES.items()},
            "directories": list(filter(view.is_directory, arguments["directories"])),
        }


@contextmanager
def _moved_back() -> Iterator[None]:
    """Have the root directory and the umask afterwards that there were before."""
    outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(mask)
        os.fchdir(outside)
        os.chroot(".")
        os.close(outside)


def _look(path: str) -> tuple[int, int]:
    try:
        facts = os.stat(path)
    except OSError:
        return 0, 0
    return facts.st_dev, facts.st_ino


def resolve(
    root: int, binds: Sequence[Sequence[str]], opened: ExitStack
) -> tuple[list[tuple[str | None, str, _Facts]], "View"]:
    """Return for each bind its target, None where it is left out, the reason, and what it shows.

    `binds` are options of bubblewrap with source and target; a source that is not there is no
    reason. `opened` closes what is open for the view. The process is in a chroot of the tree
    afterwards.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sources = [_opened(option, source, opened) for option, source, _ in binds]
    os.fchdir(root)
    os.chroot(".")
    view = View(root)
    found: list[tuple[str | None, str, _Facts]] = []
    for (_, _, target), (source, facts) in zip(binds, sources, strict=True):
        if isinstance(source, OSError):
            gone = isinstance(source, FileNotFoundError | NotADirectoryError)
            reason = "" if gone else f"it can't be read ({source.strerror})"
            found.append((None, reason, facts))
            continue
        try:
            found.append((view.show(source, target), "", facts))
        except _UnfitError as error:
            found.append((None, str(error), facts))
        except OSError as error:
            found.append((None, f"{error.filename or target}: {error.strerror}", facts))
    return found, view


def _opened(option: str, source: str, opened: ExitStack) -> tuple[_Mount | OSError, _Facts]:
    """Open what is to be shown, as the host has it."""
    if option in _EMPTY:
        return _Mount(option=option), _NO_FACTS
    try:
        descriptor = _open(source or "/proc")
    except OSError as error:
        return error, _NO_FACTS
    opened.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    facts = (os.readlink(f"/proc/self/fd/{descriptor}"), status.st_dev, status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        return _Mount(descriptor, option), facts
    return _Mount(option=option, is_directory=False), facts


def _open(source: str) -> int:
    try:
        return os.open(
            f"{source}/", os.O_PATH | os.O_CLOEXEC
        )  # whose slash has it mounted, if need be
    except NotADirectoryError:
        return os.open(source, os.O_PATH | os.O_CLOEXEC)


class View:
    """The tree as a sandbox sees it, with what is mounted in it so far."""

    def __init__(self, root: int) -> None:
        self._mounts = {"/": _Mount(root)}

    def show(self, source: _Mount, target: str) -> str:
        """Note what is shown at a target, and return the target's path without links.

        Raises _UnfitError or OSError.
        """
        path = self._path(target)
        if source.option == "--tmpfs" and not self._may_be_empty(path):
            raise _UnfitError("")
        if path == "/":
            raise _UnfitError("it would hide all of the image")
        kind = self._kind(path)
        if kind is None:
            self._make(path, source)
        elif stat.S_ISDIR(kind) != source.is_directory:
            kinds = ("a file", "a directory")
            here, shown = kinds if source.is_directory else reversed(kinds)
            raise _UnfitError(f"there is {here} in place of {shown}")
        self._mounts = {
            place: mount for place, mount in self._mounts.items() if not is_below(place, path)
        }
        self._mounts[path] = source
        return path

    def is_directory(self, path: str) -> bool:
        """Tell whether there is a directory at a path."""
        try:
            return self._kind(self._path(path)) == stat.S_IFDIR
        except (_UnfitError, OSError):
            return False

    def _may_be_empty(self, path: str) -> bool:
        """Tell whether an empty file system hides nothing of the host, nor all of the image."""
        mount, _ = self._holder(path)
        return path != "/" and (mount.is_tree or mount.option in _EMPTY)

    def _path(self, target: str) -> str:
        """Follow a path as the kernel does; what is missing of it is taken as it is written."""
        left = deque(target.split("/"))
        at, links = "/", 0
        while left:
            name = left.popleft()
            if name in {"", "."}:
                continue
            if name == "..":
                at = os.path.dirname(at)
                continue
            at = os.path.join(at, name)
            kind = self._kind(at)
            if kind is not None and stat.S_ISLNK(kind):
                links += 1
                if links > _MOST_LINKS:
                    raise _UnfitError(f"{at} is one of a loop of links")
                to = self._link(at)
                left.extendleft(reversed(to.split("/")))
                at = "/" if to.startswith("/") else os.path.dirname(at)
            elif kind is not None and left and not stat.S_ISDIR(kind):
                raise _UnfitError(f"{at} is no directory")
        return at

    def _holder(self, path: str) -> tuple[_Mount, str]:
        """Return the mount that a path lies in, and its path below that."""
        place = path
        while place not in self._mounts:
            place = os.path.dirname(place)
        return self._mounts[place], os.path.relpath(path, place)

    def _kind(self, path: str) -> int | None:
        """Return what is at a path (stat.S_IFMT), None for nothing."""
        mount, below = self._holder(path)
        if below == ".":
            return stat.S_IFDIR if mount.is_directory else stat.S_IFREG
        if mount.option in _EMPTY:
            return _DEV.get(below) if mount.option == "--dev" else None
        if mount.option == "--proc" and below.split("/")[0].isdigit():
            raise _UnfitError("processes are not to be hidden")
        try:
            return stat.S_IFMT(os.lstat(below, dir_fd=mount.descriptor).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _link(self, path: str) -> str:
        mount, below = self._holder(path)
        if mount.option in {"--dev", "--proc"}:
            raise _UnfitError(f"{path} is a link of the kernel's")
        return os.readlink(below, dir_fd=mount.descriptor)

    def _make(self, path: str, source: _Mount) -> None:
        """Make what a mount needs to lie on, and the directories above."""
        mount, below = self._holder(path)
        if mount.option in _EMPTY:
            return  # bubblewrap makes it, in memory
        if not mount.is_tree:
            raise _UnfitError("there is no such thing, and on the host nothing is made for it")
        placeholders.make(below, mount.descriptor, is_directory=source.is_directory)
