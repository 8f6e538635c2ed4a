"""Bringing an upper directory to the form that the next backend reads.

Each backend leaves deletions in its own form (fimd.trees.upper knows them all). Before another
one mounts an upper, what is deleted is worked out from the upper and the layers below, written in
the form of the next backend, and only then is the former form removed. Killed in between, both
are there, which means the same.

The name of the backend that used an upper last is kept in work/, so that nothing is searched where
nothing changed. FlatImage keeps directories of its own there: then it is not to be relied on; nor
where a unionfs has layers with deletions, whose devices it may have copied.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from fimd.dwarfs.write import Entry, SourceTree
from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource
from fimd.trees.canonical import canonical
from fimd.trees.marks import HIDDEN, UNIONFS_DIRECTORIES
from fimd.trees.merged import Merged, is_whiteout, open_layers
from fimd.trees.upper import OPAQUE_NAMES, OPAQUE_XATTRS, WHITEOUT_PREFIX, read_upper
from fimd.trees.whiteouts import whiteouts

_RECORD: Final = ".overlay"


def adapt(
    data: str,
    layers: Sequence[LayerSource],
    backend: str,
    marks_directory: bytes | None,
    work: str,
) -> None:
    """Bring the upper of a data directory to the form that `backend` reads.

    `marks_directory` is where a unionfs keeps its marks; None is for backends that read devices
    0:0. `work` is the name of the directory in work/ that is being prepared for the backend. Reads
    and writes the user's filesystem: for a thread, and for the holder of the data directory.
    """
    record = os.path.join(data, "work", _RECORD)
    # a unionfs copies devices up from layers, where it shows them
    copies = marks_directory is not None and any(whiteouts(layer) for layer in layers)
    known = set(os.listdir(os.path.dirname(record))) <= {_RECORD, work}
    if _last(record) == backend and known and not copies:
        return
    root = os.fsencode(os.path.join(data, "root"))
    with SourceTree(os.fsdecode(root)) as tree:
        scanned = tree.scan()
    upper = read_upper(os.fsdecode(root), scanned)
    marked = any(_top(entry.path) in UNIONFS_DIRECTORIES for entry in scanned)
    if upper.has_marks or marked:
        places = [LayerPlace(layer.path, layer.offset, layer.size) for layer in layers]
        with open_layers(places) as images:
            entries = canonical(upper, Merged(images))
        deleted = {entry.path for entry in entries if is_whiteout(entry.mode, entry.rdev)}
        there = [entry for entry in upper.entries if entry.is_directory]
        present = {entry.path for entry in there}
        made = [entry for entry in entries if entry.is_directory and entry.path not in present]
        _make_directories(root, made)
        if marks_directory is None:
            _write_devices(root, deleted)
            _remove_former(root, scanned, lambda path, _entry: path in deleted)
            for name in UNIONFS_DIRECTORIES:
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)
        else:
            _write_marks(os.path.join(root, marks_directory), deleted)
            _remove_former(root, scanned, lambda _path, _entry: False)
            _remove_stale_marks(root, marks_directory, deleted)
        _remove_attributes(root, upper.opaque)
        for entry in (*there, *made):  # whose times all of this has changed
            os.utime(os.path.join(root, entry.path), ns=(entry.mtime_ns, entry.mtime_ns))
    with open(f"{record}.new", "w") as file:
        file.write(backend)
    os.replace(f"{record}.new", record)


def _last(record: str) -> str:
    try:
        with open(record) as file:
            return file.read(64)
    except (OSError, UnicodeDecodeError):
        return ""


def _top(path: bytes) -> bytes:
    return path.partition(b"/")[0]


def _make_directories(root: bytes, entries: Iterable[Entry]) -> None:
    """Make the directories, known from lower layers, in which something is deleted."""
    for entry in sorted(entries, key=lambda entry: entry.path):
        path = os.path.join(root, entry.path)
        with suppress(FileExistsError):
            os.mkdir(path)
            if os.geteuid() == 0:
                os.chown(path, entry.uid, entry.gid)
            os.chmod(path, stat.S_IMODE(entry.mode))
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))


def _write_devices(root: bytes, deleted: Iterable[bytes]) -> None:
    for path in deleted:
        with suppress(FileExistsError):
            os.mknod(os.path.join(root, path), stat.S_IFCHR, os.makedev(0, 0))


def _write_marks(directory: bytes, deleted: Iterable[bytes]) -> None:
    for path in deleted:
        mark = os.path.join(directory, path + HIDDEN)
        os.makedirs(os.path.dirname(mark), exist_ok=True)
        with suppress(FileExistsError), open(mark, "xb"):
            pass


def _remove_stale_marks(root: bytes, directory: bytes, deleted: set[bytes]) -> None:
    """Remove marks that say what the canonical form says otherwise, or another unionfs's."""
    for name in UNIONFS_DIRECTORIES:
        top = os.path.join(root, name)
        if name != directory:
            shutil.rmtree(top, ignore_errors=True)
            continue
        for parent, directories, files in os.walk(top, topdown=False):
            for mark in (*files, *directories):
                path = os.path.join(parent, mark)
                hides = os.path.relpath(path, top)
                if not mark.endswith(HIDDEN) or hides.removesuffix(HIDDEN) in deleted:
                    continue
                if os.path.isdir(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)


def _remove_former(
    root: bytes, scanned: Iterable[Entry], keep: Callable[[bytes, Entry], bool]
) -> None:
    """Remove devices 0:0, unless they are to be kept, and the marker files of fuse-overlayfs."""
    for entry in scanned:
        name = os.path.basename(entry.path)
        if _top(entry.path) in UNIONFS_DIRECTORIES:
            continue
        device = is_whiteout(entry.mode, entry.rdev)
        empty = entry.is_file and entry.size == 0
        marker = (device or empty) and (name in OPAQUE_NAMES or name.startswith(WHITEOUT_PREFIX))
        if marker or (device and not keep(entry.path, entry)):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(root, entry.path))


def _remove_attributes(root: bytes, opaque: Iterable[bytes]) -> None:
    """Remove what makes a directory opaque: its lower names have marks of their own now."""
    for directory in opaque:
        path = os.path.join(root, directory)
        for name in OPAQUE_XATTRS & set(os.listxattr(path, follow_symlinks=False)):
            os.removexattr(path, name, follow_symlinks=False)
