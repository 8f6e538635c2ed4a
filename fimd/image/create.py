"""Making an image: header, reserved space, chain, in a file that appears only once it is whole."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import header
from .chain import LENGTH
from .copy import Cancelled, Progress, copy_range, ignore_progress, never_cancelled
from .errors import ImageError, NotALayerError
from .file import open_image, size_of, sync, write_at, write_errors
from .layout import RESERVED_SIZE, Kind, Layout
from .reserved import FRESH, Settings, encode_settings
from .section import is_whole

EXECUTABLE = 0o777


def create_image(
    output: str | os.PathLike[str],
    layers: Sequence[str | os.PathLike[str]],
    settings: Settings = FRESH,
    *,
    replace: bool = False,
    progress: Progress = ignore_progress,
    cancelled: Cancelled = never_cancelled,
) -> None:
    """Make the executable image `output` of DwarFS files, the base layer first.

    It is on the disk and complete when it appears under its name; until then it is a hidden file
    beside it, which is removed where anything fails. An existing file is an error unless `replace`.
    """
    target = Path(output)
    if not layers:
        raise ImageError(f"{target} needs at least one layer: the base of its root filesystem")
    if not replace and os.path.lexists(target):
        raise ImageError(f"{target} exists already: choose another name or remove it")
    table = encode_settings(settings, str(target))
    with contextlib.ExitStack() as stack:
        sources = [
            (fd, size_of(fd)) for fd in (stack.enter_context(_layer(path)) for path in layers)
        ]
        with _published(target, replace=replace) as fd:
            _fill(fd, sources, table, progress, cancelled)


@contextlib.contextmanager
def _layer(path: str | os.PathLike[str]) -> Iterator[int]:
    with open_image(path) as fd:
        if not is_whole(fd, 0, size_of(fd)):
            raise NotALayerError(f"{Path(path)} is no complete DwarFS image: create it anew")
        yield fd


def _fill(
    fd: int,
    sources: Sequence[tuple[int, int]],
    table: Sequence[tuple[int, bytes]],
    progress: Progress,
    cancelled: Cancelled,
) -> None:
    layout = Layout(Kind.SCRIPT, header.SIZE, RESERVED_SIZE)
    write_at(fd, 0, header.header())
    for offset, data in table:
        write_at(fd, layout.reserved_offset + offset, data)
    total = sum(size for _, size in sources)
    position, done = layout.chain_offset, 0
    for source, size in sources:
        write_at(fd, position, LENGTH.pack(size))
        told = _shifted(progress, done, total)
        copy_range(source, 0, fd, position + LENGTH.size, size, told, cancelled)
        position += LENGTH.size + size
        done += size


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _size: progress(before + done, total)


@contextlib.contextmanager
def _published(target: Path, *, replace: bool) -> Iterator[int]:
    """A new file that becomes the executable `target` at the end, unless something is raised."""
    try:
        fd, name = tempfile.mkstemp(prefix=".fimd-image-", dir=target.parent)
    except OSError as error:
        raise ImageError(
            f"no file can be made in {target.parent}: {error.strerror}. Choose another folder"
        ) from error
    try:
        yield fd
        with write_errors(fd):
            os.fchmod(fd, EXECUTABLE & ~_umask())
        sync(fd)
        _give_name(name, target, replace=replace)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    _sync_folder(target.parent)


def _give_name(name: str, target: Path, *, replace: bool) -> None:
    try:
        if replace:
            os.replace(name, target)
            return
        try:
            os.link(name, target)  # unlike a rename, this fails where somebody was faster
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                raise
            os.rename(name, target)  # a file system without hard links
    except FileExistsError:
        raise ImageError(f"{target} exists already: choose another name or remove it") from None
    except OSError as error:
        raise ImageError(f"{target} cannot be made: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot, and need not
            os.fsync(fd)
    finally:
        os.close(fd)


def _umask() -> int:
    """The process's umask, without changing it for a moment as os.umask does."""
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
