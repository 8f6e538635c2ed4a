"""Layers without FUSE: unpacked once into the store, and shown from there.

What a process in the user's namespace does of it.
"""

import hashlib
import math
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import structlog

from fimd.base.abilities import REFUSALS
from fimd.base.errors import (
    NO_ROOM,
    BadLayerError,
    FimError,
    MountError,
    no_room,
)
from fimd.base.system_calls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    UMOUNT_NOFOLLOW,
    mount,
    unmount,
)
from fimd.dwarfs.errors import DamagedError, DwarfsError
from fimd.dwarfs.extract import extract
from fimd.dwarfs.reader import Image
from fimd.dwarfs.sections import fingerprint
from fimd.dwarfs.verify import verify
from fimd.flatimage.copy import copy_range
from fimd.flatimage.errors import ImageError
from fimd.layers.owners import Owners
from fimd.mounts.table import MountTable
from fimd.store.store import Store

log = structlog.get_logger(__name__)

_MAPS: Final = (Path("/proc/self/uid_map"), Path("/proc/self/gid_map"))
_BLOCK: Final = 4096
"""Bytes that a name takes at most, and what the size of a file is rounded up to."""
_KEPT: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC
"""Flags of a mount that who binds it may not take away, as statvfs(3) has them, too."""


def unpack(arguments: dict[str, Any], files: list[int]) -> list[str]:
    """Have layers in the store; return the names that they have there.

    Raises BadLayerError for one that is not sound, and other FimErrors.
    """
    names = []
    with Store(**arguments["store"]) as store:
        for layer in arguments["layers"]:
            name = _name(bytes.fromhex(layer["content"]))
            names.append(name)
            if name in store:
                continue
            with store.changing():
                if name not in store:  # others may have been waiting for the same
                    _add(store, name, layer, files[layer["file"]])
    return names


def _name(content: bytes) -> str:
    """Return what a layer is called by its content, and by whom the ids here belong to outside."""
    digest = hashlib.sha256(content)
    for path in _MAPS:
        digest.update(b"\0" + path.read_bytes())
    return f"sha256-{digest.hexdigest()}"


def _add(store: Store, name: str, layer: dict[str, Any], file: int) -> None:
    path, offset, size = layer["path"], layer["offset"], layer["size"]
    try:
        # who may write to the file can't put other bytes there between the look and the use
        with TemporaryFile(dir=store.path) as copy:
            copy_range(file, offset, copy.fileno(), offset, size)
            with Image.open(copy.fileno(), offset, size, name=path) as image:
                _check(image, bytes.fromhex(layer["content"]))
                store.add(name, _room(image), lambda place: _write_out(image, place))
        log.info("layer unpacked", path=path, offset=offset, tree=name)
    except ImageError as error:
        raise FimError(str(error)) from error
    except DwarfsError as error:
        said = str(error)
        raise BadLayerError(said if path in said else f"layer {path}: {said}") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise FimError(no_room(error)) from error
        raise FimError(f"layer {path} can't be unpacked into {store.path}: {error}") from error


def _check(image: Image, content: bytes) -> None:
    """Raise DwarfsError for what is not sound, or not what its name in the store says."""
    for fault in verify(image):
        raise fault
    source = image.source
    found = fingerprint(source.fd, source.offset, image.size)
    if image.table.has_checksums and found != content:
        raise DamagedError("it was changed meanwhile: try again", path=source.name)


def _room(image: Image) -> int:
    """Return how many bytes an image takes unpacked, at most."""
    sizes = {facts.inode: facts.allocated for _, facts in image.walk()}
    blocks = sum(-(-size // _BLOCK) for size in sizes.values())
    return (blocks + image.metadata.entry_count) * _BLOCK


def _write_out(image: Image, place: str) -> None:
    """Write a layer's tree, with the owners that it is to be seen with. Raises OSError."""
    owners = Owners.of(image)
    extract(
        image,
        place,
        owners=lambda facts: (owners.user(facts.uid), owners.group(facts.gid)),
        on_skip=lambda path, error: _pass_over(image, path, error),
    )


def _pass_over(image: Image, path: bytes, error: OSError) -> None:
    """Do without a device that can't be made here. Raises any other error.

    Deletions are such devices: who lays an overlay over the tree looks whether they are there.
    """
    inode: int | None = image.root
    for name in path.split(b"/"):
        inode = None if inode is None else image.lookup(inode, name)
    facts = image.stat(image.root if inode is None else inode)
    is_device = stat.S_ISCHR(facts.mode) or stat.S_ISBLK(facts.mode)
    if not is_device or error.errno not in REFUSALS:
        raise error


async def serve(arguments: dict[str, Any], _files: list[int], on_ready: Callable[[], None]) -> None:
    """Show trees of the store, by their layers' identifiers, until it is unmounted."""
    point = arguments["mount_point"]
    with ExitStack() as held:
        try:
            mount(arguments["source"], point, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
            held.callback(_unmount, point)
            store = held.enter_context(Store(**arguments["store"]))
            for layer_id, name in arguments["trees"].items():
                tree, in_use = store.use(name)
                held.callback(os.close, in_use)
                place = os.path.join(point, layer_id)
                os.mkdir(place)
                _bind(tree, place)
                os.close(tree)
            flags = MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV
            mount("", point, "", flags, "mode=0755")
        except OSError as error:
            raise MountError(f"unpacked layers can't be shown: {error.strerror}") from error
        with MountTable() as table:
            on_ready()
            await table.wait_for(point, mounted=False, seconds=math.inf)


def _bind(tree: int, place: str) -> None:
    """Show an open directory at another place, where nobody can write to it."""
    mount(f"/proc/self/fd/{tree}", place, "", MS_BIND, "")
    kept = os.statvfs(place).f_flag & _KEPT
    mount("", place, "", MS_BIND | MS_REMOUNT | MS_RDONLY | kept, "")


def _unmount(point: str) -> None:
    with suppress(OSError):  # who waited for its end has done so
        unmount(point, MNT_DETACH | UMOUNT_NOFOLLOW)
