"""The settings that a FlatImage 1.x keeps inside of its filesystem: fim/config/NAME.json.

The writable directory's counts, then that of the topmost layer that has one.
"""

import os
import stat
from collections.abc import Iterable
from typing import Final, TypeVar

from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image
from fimd.image.chain import EmbeddedLayer
from fimd.image.errors import SettingsError
from fimd.image.reserved import BINDINGS, BOOT, ENVIRONMENT, Field

T = TypeVar("T")

KEPT: Final = frozenset(field.name for field in (BINDINGS, BOOT, ENVIRONMENT))
"""Of the settings that have no place in the reserved space of 1.x, those whose form is 2.x's."""

_FOLDERS: Final = ("fim", "config")
_CACHE: Final = 4 << 20


def read_layered(
    descriptor: int, layers: Iterable[EmbeddedLayer], upper: str, field: Field[T]
) -> T:
    """Return a setting of the open image; `layers` are its own, base first, `upper` a directory.

    Raises SettingsError for one that is damaged.
    """
    if field.name not in KEPT:
        return field.unset
    name = f"{field.name}.json"
    try:
        data = _in_directory(os.path.join(upper, *_FOLDERS, name), field.size)
        if data is None:
            data = _in_layers(descriptor, layers, name, field.size)
        return field.unset if not data or not data.strip(b"\0") else field.decode(data)
    except (OSError, ValueError, DwarfsError) as error:
        raise SettingsError(f"{'/'.join(_FOLDERS)}/{name} can't be used: {error}") from error


def _in_directory(path: str, limit: int) -> bytes | None:
    """Return a file's bytes; None where there is none, nothing where it was deleted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(descriptor, "rb") as file:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return _bounded(file.read(limit), limit) if regular else b""


def _in_layers(
    descriptor: int, layers: Iterable[EmbeddedLayer], name: str, limit: int
) -> bytes | None:
    for layer in reversed(list(layers)):
        with Image.open(descriptor, layer.offset, layer.size, cache_bytes=_CACHE) as image:
            inode = _find(image, (*_FOLDERS, name))
            if inode is None:
                continue
            if not stat.S_ISREG(image.stat(inode).mode):
                return b""
            return _bounded(bytes(image.read(inode, 0, limit)), limit)
    return None


def _find(image: Image, path: Iterable[str]) -> int | None:
    inode = image.root
    for part in path:
        if not stat.S_ISDIR(image.stat(inode).mode):
            return None
        found = image.lookup(inode, os.fsencode(part))
        if found is None:
            return None
        inode = found
    return inode


def _bounded(data: bytes, limit: int) -> bytes:
    if len(data) >= limit:
        raise ValueError(f"it has more than {limit - 1} bytes")
    return data
