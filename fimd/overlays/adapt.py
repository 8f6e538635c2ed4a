"""Bringing an upper directory to the form that the next backend reads.

Each backend leaves deletions in its own form (fimd.trees.upper knows them all). Before another
one mounts an upper, what is deleted is worked out from the upper and the layers below, written in
the form of the next backend, and only then is the former form removed. Killed in between, both
are there, which means the same.

The name of the backend that used an upper last is kept in work/, so that nothing is searched where
nothing changed. FlatImage keeps directories of its own there: then it is not to be relied on; nor
where a unionfs has layers with deletions, whose devices it may have copied.

All of it is by descriptors of the data directory and the layers, and for a process in a jail.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.base.removal import remove_tree
from fimd.commits.opened import OpenData
from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.write import Entry, SourceTree
from fimd.layers.owners import Owners
from fimd.layers.place import LayerPlace
from fimd.trees import attributes
from fimd.trees.canonical import canonical
from fimd.trees.marks import HIDDEN, UNIONFS_DIRECTORIES
from fimd.trees.merged import Merged, is_whiteout, open_layers
from fimd.trees.upper import OPAQUE_XATTRS, read_upper
from fimd.trees.written import remove_marks, write_marks

_RECORD: Final = ".overlay"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def adapt(
    data: OpenData,
    layers: Sequence[LayerPlace],
    backend: str,
    marks_directory: bytes | None,
    work: str,
    *,
    by_files: bool = False,
    copies: bool = False,
    ids: int = 1,
) -> None:
    """Bring the upper of a data directory to the form that `backend` reads.

    `layers` are open, base first. `marks_directory` is where a unionfs keeps its marks; None is for
    backends that read devices 0:0; `by_files` says that such a one reads files `.wh.NAME` as well,
    which it gets where no devices can be made. `work` is the name of the directory in work/ that is
    being prepared for the backend, `copies` says whether the upper may hold devices of layers,
    which a unionfs copies up where it shows them, and `ids` is of fimd.layers.owners. Raises
    UnsupportedError where the file system can't hold the form, PackError, OSError and other
    FimErrors. For the holder of the data directory.
    """
    known = set(os.listdir(data.work)) <= {_RECORD, work}
    if _last(data.work) == backend and known and not copies:
        return
    top = data.open_upper()
    try:
        with SourceTree(data.root, directory=top) as tree, Beneath(top) as upper:
            _adapt(top, tree, upper, layers, marks_directory, by_files, ids)
    finally:
        os.close(top)
    _write_down(data.work, backend)


def _adapt(
    top: int,
    tree: SourceTree,
    beneath: Beneath,
    layers: Sequence[LayerPlace],
    marks_directory: bytes | None,
    by_files: bool,
    ids: int,
) -> None:
    scanned = tree.scan()
    upper = read_upper(tree, scanned)
    marked = any(_top(entry.path) in UNIONFS_DIRECTORIES for entry in scanned)
    if not upper.has_marks and not marked:
        return
    with open_layers(layers) as images:
        lower = Merged(images)
        entries = [_as_shown(entry, lower, ids) for entry in canonical(upper, lower)]
    deleted = {entry.path for entry in entries if is_whiteout(entry.mode, entry.rdev)}
    there = [entry for entry in upper.entries if entry.is_directory]
    present = {entry.path for entry in there}
    made = [entry for entry in entries if entry.is_directory and entry.path not in present]
    _make_directories(beneath, made)
    if marks_directory is None:
        written = write_marks(beneath, deleted, by_files=by_files)
        if written is None:
            raise UnsupportedError(
                f"the file system of {tree.name} keeps no devices, by which it marks deletions"
            )
        remove_marks(beneath, scanned, lambda path: path in written)
        for name in UNIONFS_DIRECTORIES:
            remove_tree(top, name)
    else:
        _make_marks_directory(top, marks_directory)
        _write_unionfs_marks(beneath, marks_directory, deleted)
        remove_marks(beneath, scanned, lambda _path: False)
        _remove_stale_marks(top, beneath, scanned, marks_directory, deleted)
    _remove_attributes(beneath, upper.opaque)
    for entry in (*there, *made):  # whose times all of this has changed
        descriptor = beneath.open(entry.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)


def _last(work: int) -> str:
    try:
        with open(os.open(_RECORD, _READ, dir_fd=work)) as file:
            return file.read(64)
    except (OSError, UnicodeDecodeError):
        return ""


def _write_down(work: int, backend: str) -> None:
    new = f"{_RECORD}.new"
    remove_tree(work, new)
    with open(os.open(new, _NEW, 0o644, dir_fd=work), "w") as file:
        file.write(backend)
    os.replace(new, _RECORD, src_dir_fd=work, dst_dir_fd=work)


def _top(path: bytes) -> bytes:
    return path.partition(b"/")[0]


def _as_shown(entry: Entry, lower: Merged, ids: int) -> Entry:
    """Return a directory of a layer with the owners that it has for an application."""
    node = lower.find(entry.path) if entry.source is None and entry.is_directory else None
    if node is None:
        return entry
    image = node.parts[0][0]
    top = image.stat(image.root)
    owners = Owners(top.uid, top.gid, ids)
    return replace(entry, uid=owners.user(entry.uid), gid=owners.group(entry.gid))


def _make_directories(beneath: Beneath, entries: Iterable[Entry]) -> None:
    """Make the directories, known from lower layers, in which something is deleted."""
    for entry in sorted(entries, key=lambda entry: entry.path):
        parent, name = beneath.parent(entry.path)
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
            descriptor = beneath.open(entry.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with suppress(PermissionError):  # who is no root owns everything
                    os.chown(descriptor, entry.uid, entry.gid)
                with suppress(PermissionError):  # some file systems keep none
                    os.chmod(descriptor, stat.S_IMODE(entry.mode))
                os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(descriptor)


def _make_marks_directory(top: int, directory: bytes) -> None:
    """Have a directory for the marks: what else has its name is no directory of a unionfs's."""
    try:
        os.mkdir(directory, dir_fd=top)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(directory, dir_fd=top, follow_symlinks=False).st_mode):
            os.unlink(directory, dir_fd=top)
            os.mkdir(directory, dir_fd=top)


def _write_unionfs_marks(beneath: Beneath, directory: bytes, deleted: Iterable[bytes]) -> None:
    made: set[bytes] = set()
    for path in sorted(deleted):
        mark = directory + b"/" + path + HIDDEN
        parts = mark.split(b"/")
        for depth in range(2, len(parts)):
            above = b"/".join(parts[:depth])
            if above not in made:
                made.add(above)
                parent, name = beneath.parent(above)
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=parent)
        with suppress(FileExistsError):
            os.close(beneath.open(mark, _NEW, 0o644))


def _remove_stale_marks(
    top: int,
    beneath: Beneath,
    scanned: Iterable[Entry],
    directory: bytes,
    deleted: set[bytes],
) -> None:
    """Remove marks that say what the canonical form says otherwise, or another unionfs's."""
    for name in UNIONFS_DIRECTORIES:
        if name != directory:
            remove_tree(top, name)
    for entry in scanned:
        marks, _, hides = entry.path.partition(b"/")
        if marks != directory or not hides.endswith(HIDDEN):
            continue
        if hides.removesuffix(HIDDEN) not in deleted:
            with suppress(FileNotFoundError):  # it lay in one that was removed
                parent, name = beneath.parent(entry.path)
                remove_tree(parent, name)


def _remove_attributes(beneath: Beneath, opaque: Iterable[bytes]) -> None:
    """Remove what makes a directory opaque: its lower names have marks of their own now."""
    for directory in opaque:
        descriptor = beneath.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in OPAQUE_XATTRS & set(attributes.names(descriptor)):
                os.removexattr(descriptor, name)
        finally:
            os.close(descriptor)
