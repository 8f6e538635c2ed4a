"""What every overlay backend gets and gives."""

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fimd.base.errors import DataDirectoryError
from fimd.base.resolve import open_directory
from fimd.layers.source import LayerSource
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process
from fimd.mounts.steps import Step

_FORMER_STEPS: Final = 2
"""FlatImage 1.x has its upper, upperdir, in .NAME.config/overlays beside the data directory."""
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class StackDirectory:
    """The directory of one stack. Its links make every name that a backend needs short and plain.

        layers/0..N   links to the layers' mounts, base first
        upper, work   links to the writable directories
        marks/N       what an overlay needs above layer N to read it, and those below, as it should
        lower/N, data the layers' mounts, and the directory that the upper lies in, for a program
                      that is locked into the stack's directory
        merged/       where the overlay is to be mounted

    No path of the user's ever stands in a mount option, where a comma, a colon or a backslash
    would mean something, and hundreds of layers fit into mount(2)'s one page of options.
    """

    id: str
    path: str
    layers: int
    upper: tuple[int, int]
    """The device and the inode of the upper directory: what is mounted has to be just that."""
    sources: tuple[LayerSource, ...] = ()
    """What the layers are, base first, for who is to mount them."""
    is_unpacked: bool = False
    """Whether layers were unpacked, perhaps where deletions can't be kept."""
    work: tuple[int, int] | None = None
    """The same of the work directory, where it was made before: for who is to mount an overlay."""
    ghosts: Mapping[int, frozenset[bytes]] = field(default_factory=dict)
    """What an overlay must be kept from seeing: see fimd.trees.ghosts."""

    @property
    def links(self) -> str:
        """The directory of the links to the layers' mounts."""
        return os.path.join(self.path, "layers")

    @property
    def merged(self) -> str:
        """The mount point."""
        return os.path.join(self.path, "merged")

    def top_down(self) -> str:
        """Return the layers' names, topmost first, joined by colons."""
        return ":".join(str(index) for index in reversed(range(self.layers)))

    def lower(self, marked: Container[int]) -> Iterator[str]:
        """Yield the layers' paths, topmost first, each below its marks where it has some."""
        for index in reversed(range(self.layers)):
            if index in marked:
                yield f"marks/{index}"
            yield f"layers/{index}"


def open_checked(directory: str, name: str, expected: Sequence[int]) -> int:
    """Open what `upper` or `work` of a stack's directory links to, and no other in its place.

    Who can write to the directory that it lies in may have exchanged it since it was looked at.
    `expected` are the device and the inode. Returns a descriptor. Raises DataDirectoryError.
    """
    path = os.path.join(directory, name)
    try:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        shown = os.readlink(path) if os.path.islink(path) else path
        raise DataDirectoryError(
            f"{shown} can't be opened ({error.strerror}): try again"
        ) from error
    facts = os.fstat(descriptor)
    if [facts.st_dev, facts.st_ino] != list(expected) or not stat.S_ISDIR(facts.st_mode):
        os.close(descriptor)
        raise DataDirectoryError(
            f"{os.path.realpath(path)} is another directory than it was: try again"
        )
    return descriptor


def open_holder(directory: str, upper: Sequence[int]) -> tuple[int, str]:
    """Open the directory that a stack's upper lies in: the data directory, but for FlatImage 1.x's.

    `directory` is the stack's, and `upper` as `open_checked` takes it. Returns a descriptor and the
    upper's name there, which is no link. Raises DataDirectoryError.
    """
    shown = os.readlink(os.path.join(directory, "upper"))
    data, name = os.path.split(shown)
    opened: list[int] = []
    try:
        opened += open_directory(data)
        try:
            former, found = os.path.split(os.readlink(name, dir_fd=opened[1]))
        except OSError:  # it is no link
            pass
        else:
            above, *steps = former.split("/")
            if (above, found) != ("..", "upperdir") or len(steps) != _FORMER_STEPS:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown)
            opened.append(os.dup(opened[0]))
            for step in steps:
                opened.append(os.open(step, _STEP, dir_fd=opened[-1]))
            name = found
        facts = os.stat(name, dir_fd=opened[-1], follow_symlinks=False)
        if [facts.st_dev, facts.st_ino] != list(upper) or not stat.S_ISDIR(facts.st_mode):
            raise DataDirectoryError(f"{shown} is another directory than it was: try again")
        return opened.pop(), name
    except OSError as error:
        raise DataDirectoryError(
            f"{shown} can't be opened ({error.strerror}): try again"
        ) from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


@dataclass(frozen=True)
class Overlay:
    """A mounted overlay. `process` is what serves it, None where the kernel does."""

    process: Process | None
    root: str
    """Where it is mounted in the user's namespace."""
    branches: tuple[str, ...] = ()
    """Where what it lays over each other is mounted, the upper first, if it copies nothing up as it
    should: there has to be a view over it, which does."""


Begin = Callable[[StackDirectory, float], Step]
"""Returns the step in which a process of the namespace mounts the overlay of a stack, or what its
program needs, within some seconds. May block. Raises UnsupportedError."""

Serve = Callable[[StackDirectory, Any, Namespace, float], Awaitable[Overlay]]
"""Starts the program that serves the overlay, by what its step returned. Raises MountError."""
