"""The tree of an image as a copy in its upper, where no overlay can be had; and the way back.

The layers' files that the upper lacks are copied into it, what marks deletions is taken out of it,
and programs work in it as it is. A manifest in work/ says what was copied, and what was not. By
that the upper becomes what an overlay would have left: what nobody has changed since is taken out
(whatever is written, or gets other attributes, has another change time, which no program sets), and
what is gone is marked as deleted.

The manifest is there from before the first file is copied until the upper is as it was, and is
heeded before anything else is done with that. Killed at any moment, nothing is lost.

All of it is by the descriptors of an open data directory, and for a process in a jail.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fimd.base.abilities import REFUSALS
from fimd.base.removal import remove_tree
from fimd.base.system_calls import keep_own_descriptors, sync_filesystem
from fimd.commits.opened import OpenData
from fimd.dwarfs.beneath import Beneath
from fimd.dwarfs.extract import extract
from fimd.dwarfs.reader import Image
from fimd.dwarfs.write import Entry, SourceTree
from fimd.layers.owners import Owners
from fimd.layers.place import LayerPlace
from fimd.trees.canonical import canonical
from fimd.trees.merged import Merged, Node, is_whiteout, open_layers
from fimd.trees.upper import read_upper
from fimd.trees.written import remove_marks, write_marks

_MANIFEST: Final = ".copied"
_LARGEST: Final = 256 << 20
"""Bytes of a manifest; a million files take a third of it."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOWHERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NOT_EMPTY: Final = (errno.ENOTEMPTY, errno.EEXIST)

_DEVICES: Final = {
    b"dev/null": os.makedev(1, 3),
    b"dev/zero": os.makedev(1, 5),
    b"dev/full": os.makedev(1, 7),
    b"dev/random": os.makedev(1, 8),
    b"dev/urandom": os.makedev(1, 9),
    b"dev/tty": os.makedev(5, 0),
}
"""Their numbers by Documentation/admin-guide/devices.txt of the kernel."""

_State = tuple[int, int] | None
"""Inode and change time in nanoseconds, None where they don't matter."""


@dataclass(frozen=True)
class _Manifest:
    """What is in an upper only because there is no overlay.

    Attributes:
        upper: the device and the inode of the upper, which may be another by now.
        copied: paths, and what was there once they were copied.
        others: paths that layers have too, and that had been deleted or changed before.
        is_used: whether programs work in it; else all that was copied goes.
    """

    upper: tuple[int, int]
    copied: Mapping[bytes, _State]
    others: Iterable[bytes] = ()
    is_used: bool = False


def copy_up(
    data: OpenData, layers: Sequence[LayerPlace], ids: int, *, devices: bool = False
) -> None:
    """Make the upper a whole tree, which `fold` undoes.

    `layers` are open, base first, and `ids` is of fimd.layers.owners. With `devices`, /dev gets
    those that nearly every program needs, for there is no sandbox that brings them. Raises
    DwarfsError, OSError and FimErrors; then the upper is as it was.
    """
    top = data.open_upper()
    try:
        with SourceTree(data.root, directory=top) as tree, open_layers(layers) as images:
            _copy_up(data, top, tree, images, ids, devices=devices)
    except BaseException:
        fold(data)
        raise
    finally:
        os.close(top)


def _copy_up(
    data: OpenData,
    top: int,
    tree: SourceTree,
    images: Sequence[Image],
    ids: int,
    *,
    devices: bool,
) -> None:
    scanned = tree.scan()
    lower = Merged(images)
    entries = canonical(read_upper(tree, scanned), lower)
    deleted = {entry.path for entry in entries if is_whiteout(entry.mode, entry.rdev)}
    lacking, changed = _divided(lower, {entry.path: entry for entry in scanned}, deleted)
    facts = os.fstat(top)
    upper = (facts.st_dev, facts.st_ino)
    _write(data, _Manifest(upper, dict.fromkeys(lacking)))
    for image in reversed(images):
        paths = {path for path, node in lacking.items() if node.parts[0][0] is image}
        for path in _extract(image, top, paths, ids):
            del lacking[path]
    times = {entry.path: entry.mtime_ns for entry in scanned if entry.is_directory}
    times |= {path: node.attributes.mtime_ns for path, node in lacking.items() if node.is_directory}
    with Beneath(top) as beneath:
        _set_times(beneath, times)
        made = _make_devices(beneath) if devices else []
        copied = {path: _state(beneath, path) for path in (*lacking, *made)}
        _write(data, _Manifest(upper, copied, deleted | changed, is_used=True))
        remove_marks(beneath, scanned, lambda _path: False)
        _set_times(beneath, {path: time for path, time in times.items() if path not in copied})


def _divided(
    lower: Merged, present: Mapping[bytes, Entry], deleted: set[bytes]
) -> tuple[dict[bytes, Node], set[bytes]]:
    """Return what layers show and the upper has not, and the paths that both have."""
    lacking: dict[bytes, Node] = {}
    changed: set[bytes] = set()
    seen_through = {b""}
    for path, node in lower.walk():
        if not path or path in deleted or path.rpartition(b"/")[0] not in seen_through:
            continue
        entry = present.get(path)
        if entry is None:
            lacking[path] = node
        else:
            changed.add(path)
        if node.is_directory and (entry is None or entry.is_directory):
            seen_through.add(path)
    return lacking, changed


def _extract(image: Image, top: int, paths: set[bytes], ids: int) -> list[bytes]:
    """Copy paths of a layer; return those of devices that can't be made here."""
    if not paths:
        return []
    root = image.stat(image.root)
    owners = Owners(root.uid, root.gid, ids)
    skipped: list[bytes] = []

    def skip(path: bytes, error: OSError) -> None:
        if error.errno not in REFUSALS or not _is_device(image, path):
            raise error
        skipped.append(path)

    extract(
        image,
        top,
        owners=lambda facts: (owners.user(facts.uid), owners.group(facts.gid)),
        wanted=paths.__contains__,
        descriptors=keep_own_descriptors(),
        on_skip=skip,
    )
    return skipped


def _make_devices(beneath: Beneath) -> list[bytes]:
    """Make the devices that are missing; return their paths."""
    made = []
    for path, number in _DEVICES.items():
        with suppress(OSError):  # it is there, or its directory is not, or it may not be made
            parent, name = beneath.parent(path)
            os.mknod(name, stat.S_IFCHR | 0o666, number, dir_fd=parent)
            os.chmod(name, 0o666, dir_fd=parent)  # noqa: S103 - as everywhere
            made.append(path)
    return made


def _is_device(image: Image, path: bytes) -> bool:
    node = Merged([image]).find(path)
    mode = 0 if node is None else node.attributes.mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def fold(data: OpenData) -> None:
    """Make the upper what an overlay would have left, if it is a copy. Raises OSError."""
    manifest = _read(data)
    if manifest is None:
        remove_tree(data.work, _MANIFEST)
        return
    top = data.open_upper()
    try:
        facts = os.fstat(top)
        if (facts.st_dev, facts.st_ino) == manifest.upper:
            with Beneath(top) as beneath:
                times = _times(beneath, manifest)
                if manifest.is_used:
                    manifest = _settle(data, beneath, manifest)
                _take_out(beneath, manifest.copied)
                _set_times(beneath, times)
            sync_filesystem(top)
    finally:
        os.close(top)
    os.unlink(_MANIFEST, dir_fd=data.work)


def is_copied(data: OpenData) -> bool:
    """Tell whether there is anything for `fold` to do."""
    try:
        os.stat(_MANIFEST, dir_fd=data.work, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _settle(data: OpenData, beneath: Beneath, manifest: _Manifest) -> _Manifest:
    """Mark what is gone, and return what may be taken out then."""
    gone: set[bytes] = set()
    unchanged: dict[bytes, _State] = {}
    for path, state in {**dict.fromkeys(manifest.others), **manifest.copied}.items():
        try:
            parent, name = beneath.parent(path)
        except OSError as error:
            if error.errno not in _NOWHERE:
                raise
            continue  # a directory above is gone, or is none any more, which says the same
        try:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            gone.add(path)
            continue
        if state == (facts.st_ino, facts.st_ctime_ns):
            unchanged[path] = None if stat.S_ISDIR(facts.st_mode) else state
    write_marks(beneath, gone, by_files=True)
    sync_filesystem(data.work)
    left = _Manifest(manifest.upper, unchanged)
    _write(data, left)
    return left


def _take_out(beneath: Beneath, copied: Mapping[bytes, _State]) -> None:
    """Remove what was copied and is as it was, and directories that are empty then."""
    # all are looked at before: a file has another change time once one of its names is gone
    found = [path for path, state in copied.items() if state in {None, _state(beneath, path)}]
    for path in sorted(found, reverse=True):
        try:
            parent, name = beneath.parent(path)
            try:
                os.unlink(name, dir_fd=parent)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in {*_NOWHERE, *_NOT_EMPTY}:
                raise


def _times(beneath: Beneath, manifest: _Manifest) -> dict[bytes, int]:
    """Return the times of directories in which something is to be marked or removed."""
    above = {path.rpartition(b"/")[0] for path in (*manifest.others, *manifest.copied)}
    found = {}
    for path in above:
        facts = _stat(beneath, path)
        if facts is not None and stat.S_ISDIR(facts.st_mode):
            found[path] = facts.st_mtime_ns
    return found


def _set_times(beneath: Beneath, times: Mapping[bytes, int]) -> None:
    for path, time in times.items():
        with suppress(FileNotFoundError):
            parent, name = beneath.parent(path)
            os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)


def _stat(beneath: Beneath, path: bytes) -> os.stat_result | None:
    try:
        parent, name = beneath.parent(path)
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return None


def _state(beneath: Beneath, path: bytes) -> _State:
    facts = _stat(beneath, path)
    return None if facts is None else (facts.st_ino, facts.st_ctime_ns)


def _write(data: OpenData, manifest: _Manifest) -> None:
    new = f"{_MANIFEST}.new"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=data.work)
    facts = {
        "upper": manifest.upper,
        "copied": {os.fsdecode(path): state for path, state in manifest.copied.items()},
        "others": list(map(os.fsdecode, manifest.others)),
        "is_used": manifest.is_used,
    }
    with open(os.open(new, _NEW, 0o600, dir_fd=data.work), "w") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, _MANIFEST, src_dir_fd=data.work, dst_dir_fd=data.work)
    os.fsync(data.work)


def _read(data: OpenData) -> _Manifest | None:
    """Return the manifest; None where there is none that makes sense, as programs may write one."""
    try:
        with open(os.open(_MANIFEST, _READ, dir_fd=data.work)) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                return None
            facts = json.load(file)
        device, inode = facts["upper"]
        copied = {_path(path): _pair(state) for path, state in facts["copied"].items()}
        others = list(map(_path, facts["others"]))
        return _Manifest((device, inode), copied, others, facts["is_used"] is True)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None
    except (MemoryError, RecursionError):  # it was made to take that much
        return None


def _path(said: str) -> bytes:
    path = os.fsencode(said)
    if {b"", b".", b".."} & set(path.split(b"/")):
        raise ValueError(said)
    return path


def _pair(said: list[int] | None) -> _State:
    if said is None:
        return None
    inode, changed = said
    return inode, changed
