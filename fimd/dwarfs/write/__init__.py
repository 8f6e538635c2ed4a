"""Making DwarFS images: of a directory with `create`, of any tree with `create_from`.

An image is made in four steps: `scan` lists a directory as entries, `survey` finds equal contents
and an order, `segments` cuts them into blocks that `output` compresses in threads, and `metadata`
describes the tree. It is format 2.5 with as few features as the tree needs.
"""

import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fimd.dwarfs.write.entries import Entry, PackError, Piece, ReadContent, printable
from fimd.dwarfs.write.levels import DEFAULT_LEVEL, LEVELS, Level
from fimd.dwarfs.write.scan import Keep, Skip, SourceTree
from fimd.dwarfs.write.settings import Progress, Settings, Summary

if TYPE_CHECKING:
    from fimd.dwarfs.write.pack import create_from

else:

    def __getattr__(name):  # noqa: ANN001, ANN202 - the type checker sees the import above
        """Import what packs, and numpy, when it is first asked for: the daemon never asks."""
        if name == "create_from":
            from fimd.dwarfs.write.pack import create_from  # noqa: PLC0415 - late on purpose

            return create_from
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DEFAULT_LEVEL",
    "LEVELS",
    "Entry",
    "Level",
    "PackError",
    "Piece",
    "Progress",
    "ReadContent",
    "Settings",
    "SourceTree",
    "Summary",
    "create",
    "create_from",
]


def create(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | int,
    *,
    level: int = DEFAULT_LEVEL,
    entries: Iterable[bytes] | None = None,
    keep: Keep | None = None,
    uid: int | None = None,
    gid: int | None = None,
    threads: int | None = None,
    whiteouts: Iterable[bytes] = (),
    subsecond: bool = False,
    sparse: bool | None = None,
    created: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_skip: Skip | None = None,
) -> Summary:
    """Make an image of directory `source`.

    Args:
        source: the directory.
        output: a file name, which gets the image when it is complete; or a descriptor, which is
            written from where it stands and may hold a part of an image where this raises.
        level: 0 to 9; else ValueError.
        entries: paths below the source: only they are packed, and the directories they lie in.
        keep: asked about each entry; what it refuses is left out, a directory with all it holds.
        uid: owner of everything, instead of each one's own.
        gid: group of everything.
        threads: that compress; None for one on each processor, as far as the memory goes.
        whiteouts: paths that are added as character devices 0:0, overlayfs's form of a deletion.
        subsecond: keep the times' nanoseconds.
        sparse: whether holes are kept; None where there is enough of them.
        created: the time to write into the image, in seconds since 1970; None for none.
        progress: called about ten times a second.
        cancelled: asked about ten times a second; where it says so, this raises CancelledError.
        on_skip: told what may not be read, which is then left out; without it, it is an error.

    Raises:
        PackError: the tree cannot be packed, something in it changed meanwhile, or the image
            cannot be written; the message names it.
        CancelledError: the caller wanted it to end.
    """
    from fimd.dwarfs.write.pack import create_from  # noqa: PLC0415 - as above

    settings = Settings(level, threads, subsecond, sparse, created, progress, cancelled)
    with SourceTree(source, on_skip=on_skip) as tree, _target(output) as target:
        found = tree.scan(
            entries,
            keep=lambda entry: target.is_other(entry) and (keep is None or keep(entry)),
            cancelled=cancelled,
        )
        found += _whiteouts(found, whiteouts)
        if uid is not None:
            found = [replace(entry, uid=uid) for entry in found]
        if gid is not None:
            found = [replace(entry, gid=gid) for entry in found]
        return create_from(found, tree.read, target.fd, settings, name=target.name)


@dataclass(frozen=True, slots=True)
class _Target:
    """What the image is written to, and the files that are therefore no part of the source."""

    fd: int
    name: str
    inodes: frozenset[tuple[int, int]] = frozenset()  # device and inode

    def is_other(self, entry: Entry) -> bool:
        return entry.source.state[:2] not in self.inodes


@contextmanager
def _target(output: str | os.PathLike[str] | int) -> Iterator[_Target]:
    """The output's descriptor; a file gets its name only where all goes well."""
    if isinstance(output, int):
        yield _Target(output, "image")
        return
    name = os.fspath(output)
    try:
        old = os.stat(name)
    except OSError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):  # a device or a pipe
        with _opened(name, name, os.O_WRONLY) as fd:
            yield _Target(fd, name)
        return
    directory, base = os.path.split(name)
    part = os.path.join(directory, f".{base}.{secrets.token_hex(4)}.part")
    with _opened(part, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
        try:
            files = [os.fstat(fd), *([] if old is None else [old])]
            yield _Target(fd, name, frozenset((file.st_dev, file.st_ino) for file in files))
            os.replace(part, name)
        except BaseException:
            os.unlink(part)
            raise


@contextmanager
def _opened(path: str, name: str, flags: int) -> Iterator[int]:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise PackError(f"cannot write here: {error.strerror}", path=name) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _whiteouts(found: list[Entry], paths: Iterable[bytes]) -> Iterator[Entry]:
    """Character devices 0:0, each with the owner and time of the directory it lies in."""
    directories = {entry.path: entry for entry in found if entry.is_directory}
    for path in sorted(set(paths)):
        directory = directories.get(path.rpartition(b"/")[0])
        if directory is None:
            raise PackError(
                "a deletion needs the directory it lies in, which is not packed",
                path=printable(path),
            )
        yield Entry(path, stat.S_IFCHR, directory.uid, directory.gid, directory.mtime_ns)
