"""What a commit is asked to do, checked, and what it needs for that from outside of its jail."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import AccessDeniedError, InvalidArgumentError
from fimd.commits.opened import OpenData
from fimd.flatimage.file import open_image
from fimd.layers.owners import mapped_ids
from fimd.layers.place import LayerPlace, opened_files

MODES: Final = ("binary", "layer", "file")
LEVELS: Final = range(10)
DEFAULT_LEVEL: Final = 7


def check_level(level: int) -> None:
    """Raise InvalidArgumentError where a compression level is none."""
    if level not in LEVELS:
        raise InvalidArgumentError(f"compression level {level} is not one of 0 to 9")


@dataclass(frozen=True)
class CommitRequest:
    """What to commit, and where to.

    Attributes:
        image: the image, which `binary` appends to.
        mode: binary, layer or file.
        path: the file's absolute path, for the mode of that name.
        level: compression, 0 to 9.
        lower: the layers below the upper, base first.
        above: how many of them will lie above the new layer.
    """

    image: str
    mode: str
    path: str
    level: int
    lower: tuple[LayerPlace, ...]
    above: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidArgumentError(f"{self.mode!r} is none of {', '.join(MODES)}")
        if self.mode == "file" and not self.path.startswith("/"):
            raise InvalidArgumentError("a commit to a file needs the file's absolute path")
        check_level(self.level)


@dataclass(frozen=True)
class HeldCommit:
    """A commit with all that it needs held open.

    `lower` are the layers below the upper, `image` is open where the commit appends to it, and
    `target` is the directory that the layer's file is made in, with its path for messages. `close`
    closes the image, which can't be executed before (ETXTBSY).
    """

    request: CommitRequest
    data: OpenData
    lower: tuple[LayerPlace, ...]
    image: int | None
    target: tuple[int, str]
    close: Callable[[], None]
    ids: int
    """How many ids are mapped, which nobody finds out in a jail (see fimd.layers.owners)."""


@contextmanager
def held_commit(request: CommitRequest, data: OpenData) -> Iterator[HeldCommit]:
    """Open what a commit needs. Raises FimError or ImageError."""
    with ExitStack() as stack:
        lower = stack.enter_context(opened_files(request.lower))
        image = None
        opened = stack.enter_context(ExitStack())
        target = (data.tmp, os.path.join(data.path, "tmp"))
        if request.mode == "binary":
            image = opened.enter_context(open_image(request.image, writable=True))
        elif request.mode == "layer":
            target = (data.layers, os.path.join(data.path, "layers"))
        else:
            path = os.path.dirname(request.path)
            target = (stack.enter_context(opened_target(path)), path)
        yield HeldCommit(request, data, lower, image, target, opened.close, mapped_ids())


@contextmanager
def opened_target(path: str) -> Iterator[int]:
    """Open a directory that the user has chosen for a new file. Raises AccessDeniedError."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AccessDeniedError(
            f"{path} can't be written ({error.strerror}): choose another place"
        ) from error
    try:
        yield directory
    finally:
        os.close(directory)
