"""Where a root filesystem comes from: a directory as it is, or a tar archive to unpack.

It is unpacked where temporary files go, which programs in sandboxes may write to as well. So the
new directory is held by a descriptor, and whatever takes its name is neither read nor removed.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from . import archives
from .copy import Cancelled, Progress, ignore_progress, never_cancelled
from .errors import CancelledError, NoSpaceError, NotAnImageError, RootfsError
from .file import FULL, open_image
from .unpacker import Unpacker

_ROOT: Final = "root"
_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Remove = Callable[[int, str], None]
"""Removes what has a name in an open directory, with all that it holds, whatever modes the folders
have, and follows no link."""


@dataclass(frozen=True, slots=True)
class Rootfs:
    """A directory that holds a root filesystem, and what about it differs from its source."""

    path: Path
    """Leads to it for this process alone."""
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def open_rootfs(
    source: str | os.PathLike[str],
    *,
    remove: Remove,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress = ignore_progress,
    cancelled: Cancelled = never_cancelled,
) -> Iterator[Rootfs]:
    """The root filesystem in `source`: a directory, or a tar archive (plain, gzip, xz or zstd).

    An archive is unpacked into a new directory in `scratch` (default: where temporary files go),
    which `remove` removes on leaving. Progress counts the archive's bytes. Raises RootfsError where
    the source is neither, is damaged, or tries to leave the directory.
    """
    path = Path(source)
    if path.is_dir():
        yield Rootfs(path)
        return
    try:
        place = tempfile.mkdtemp(prefix="fimd-rootfs-", dir=scratch)
    except OSError as error:
        raise RootfsError(
            f"no folder to unpack {path} can be made: {error.strerror or error}. "
            "Name another by TMPDIR"
        ) from error
    folder, name = os.path.split(place)
    with contextlib.ExitStack() as stack:
        parent = _held(stack, os.open(os.path.join(folder, "."), _PLACE))
        stack.callback(remove, parent, name)
        closed = _held(stack, os.open(place, _PLACE))  # mode 0700, whatever that of the root is
        os.mkdir(_ROOT, dir_fd=closed)
        root = Path(f"/proc/self/fd/{_held(stack, os.open(_ROOT, _PLACE, dir_fd=closed))}")
        yield Rootfs(root, unpack(path, root, progress=progress, cancelled=cancelled))


def _held(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def unpack(
    archive: str | os.PathLike[str],
    target: Path,
    *,
    progress: Progress = ignore_progress,
    cancelled: Cancelled = never_cancelled,
) -> tuple[str, ...]:
    """Unpack a tar archive into the empty directory `target`, and say what was left out."""
    with _open_archive(archive) as file:
        total = os.fstat(file.fileno()).st_size

        def tick() -> None:
            if cancelled():
                raise CancelledError(f"unpacking {archive} was cancelled")
            progress(file.tell(), total)

        try:
            with Unpacker(target, tick) as unpacker, archives.open_tar(file) as tar:
                for member in tar:
                    tick()
                    unpacker.add(tar, member)
                    archives.forget_members(tar)
                unpacker.finish()
        except archives.DAMAGE as error:
            raise RootfsError(
                f"{archive} is no tar archive, or damaged near byte {file.tell()}: {error}"
            ) from error
        except OSError as error:
            if error.errno in FULL:
                raise NoSpaceError(f"no space left in {target} to unpack {archive}") from error
            raise RootfsError(f"{archive} cannot be unpacked: {error.strerror or error}") from error
    return unpacker.notes()


@contextlib.contextmanager
def _open_archive(archive: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        with open_image(archive) as fd, open(fd, "rb", closefd=False) as file:
            yield file
    except NotAnImageError:
        raise RootfsError(f"{Path(archive)} is neither a directory nor a tar archive") from None
