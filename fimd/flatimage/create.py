"""Making an image: header, reserved space, chain, in a file that appears only once it is whole."""

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import header
from .chain import LENGTH
from .copy import Cancelled, Progress, copy_range, ignore_progress, never_cancelled
from .errors import CancelledError, ImageError, NoSpaceError, NotALayerError
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

    It is on the disk and complete when it appears under its name; until then it has none, or a
    hidden one where the file system wants one. An existing file is an error unless `replace`.
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
        fd, name = _new_file(target.parent)
    except OSError as error:
        raise ImageError(
            f"no file can be made in {target.parent}: {error.strerror}. Choose another folder"
        ) from error
    try:
        yield fd
        with write_errors(fd):
            os.fchmod(fd, EXECUTABLE & ~_umask())
        sync(fd)
        _give_name(fd, name, target, replace=replace)
    except NoSpaceError as error:
        raise NoSpaceError(f"no space left for {target}: free some and try again") from error
    except CancelledError as error:
        raise CancelledError(f"making {target} was cancelled") from error
    finally:
        os.close(fd)
        if name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    _sync_folder(target.parent)


def _new_file(folder: Path) -> tuple[int, str | None]:
    """A file without a name, of which a crash leaves nothing; with one where that is impossible."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    return tempfile.mkstemp(prefix=".fimd-image-", dir=folder)


def _give_name(fd: int, name: str | None, target: Path, *, replace: bool) -> None:
    try:
        if replace:
            hidden = name or _link(fd, target.with_name(f".fimd-image-{secrets.token_hex(8)}"))
            os.replace(hidden, target)
        elif name is None:
            _link(fd, target)
        else:
            _rename_if_free(name, target)
    except FileExistsError:
        raise ImageError(f"{target} exists already: choose another name or remove it") from None
    except OSError as error:
        raise ImageError(f"{target} cannot be made: {error.strerror}") from error


def _link(fd: int, path: Path) -> str:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Python follows the link to the file only when it is given a folder's descriptor.
        os.link(f"/proc/self/fd/{fd}", path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
    return str(path)


def _rename_if_free(name: str, target: Path) -> None:
    try:
        os.link(name, target)  # unlike a rename, this fails where somebody was faster
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        os.rename(name, target)  # a file system without hard links


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
