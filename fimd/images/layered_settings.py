"""The settings that a FlatImage 1.x keeps inside of its filesystem: fim/config/NAME.json.

The writable directory's counts, then that of the topmost layer that has one. A change is written to
the writable directory, where FlatImage 1.x looks first, and is committed with all that is there.
"""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeVar

from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image
from fimd.flatimage.errors import SettingsError
from fimd.flatimage.reserved import (
    BINDINGS,
    BOOT,
    CASEFOLD,
    ENVIRONMENT,
    Field,
    encode_field,
)
from fimd.flatimage.settings import Casefold, decode_environment, decode_json, encode_json
from fimd.layers.place import LayerPlace

T = TypeVar("T")

_FOLDERS: Final = ("fim", "config")
_CACHE: Final = 4 << 20


def _decode_variables(data: bytes) -> Mapping[str, str]:
    """Return variables: an object, or a list of KEY=VALUE as the first images of 1.x have it."""
    value = decode_json(data)
    if not isinstance(value, list):
        return decode_environment(data)
    pairs = (str(word).partition("=") for word in value)
    return decode_environment(encode_json({key: text for key, _, text in pairs if key}))


def _encode_casefold(mode: Casefold) -> bytes:
    return encode_json({"enable": "ON", "preserve": mode is Casefold.PRESERVE})


def _decode_casefold(data: bytes) -> Casefold:
    value = decode_json(data)
    if not isinstance(value, dict) or value.get("enable") != "ON":
        return Casefold.OFF
    return Casefold.PRESERVE if value.get("preserve") is True else Casefold.ON


_FIELDS: Final[Mapping[str, Field[Any]]] = {
    field.name: field
    for field in (
        BINDINGS,
        BOOT,
        replace(ENVIRONMENT, decode=_decode_variables),
        replace(
            CASEFOLD, size=4096, encode=_encode_casefold, decode=_decode_casefold, is_text=True
        ),
    )
}
"""What is kept so, in the form that it has in these files."""


@dataclass(frozen=True)
class LayeredSettings:
    """Those of one image. `layers` are all that it has, base first; `upper` is over them."""

    image: str
    layers: Sequence[LayerPlace]
    upper: str

    def read(self, field: Field[T]) -> T:
        """Return a setting. Raises SettingsError for one that is damaged."""
        form: Field[T] | None = _FIELDS.get(field.name)
        if form is None:
            return field.unset
        name = _name(field)
        try:
            data = _in_directory(os.path.join(self.upper, *_FOLDERS, name), form.size)
            if data is None:
                data = _bounded(self._in_layers.get(name, b""), form.size)
            data = data.strip(b"\0 \n")
            return form.decode(data) if data and decode_json(data) else field.unset
        except (OSError, ValueError, DwarfsError) as error:
            raise SettingsError(f"{'/'.join(_FOLDERS)}/{name} can't be used: {error}") from error

    def write(self, field: Field[T], value: T) -> None:
        """Store a setting. Raises SettingsError where it can't be."""
        form: Field[T] | None = _FIELDS.get(field.name)
        if form is None:
            raise SettingsError(
                f"{self.image} is a FlatImage 1.x, which has no setting '{field.name}'"
            )
        data = encode_field(form, value, self.image) or b"{}"
        try:
            with _folder(self.upper) as descriptor:
                _replace(descriptor, _name(field), data)
        except OSError as error:
            raise SettingsError(
                f"{'/'.join((self.upper, *_FOLDERS, _name(field)))} can't be written: "
                f"{error.strerror}"
            ) from error

    @cached_property
    def _in_layers(self) -> Mapping[str, bytes]:
        """The topmost file of each name, read once; what is no file there is empty."""
        found: dict[str, bytes] = {}
        for place in reversed(self.layers):
            with Image.open(place.path, place.offset, place.size, cache_bytes=_CACHE) as layer:
                for form in _FIELDS.values():
                    inode = _find(layer, (*_FOLDERS, _name(form)))
                    if inode is None or _name(form) in found:
                        continue
                    regular = stat.S_ISREG(layer.stat(inode).mode)
                    data = bytes(layer.read(inode, 0, form.size)) if regular else b""
                    found[_name(form)] = data
        return found


def _name(field: Field[Any]) -> str:
    return f"{field.name}.json"


def _in_directory(path: str, limit: int) -> bytes | None:
    """Return a file's bytes; None where there is none, nothing where it was deleted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(descriptor, "rb") as file:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return _bounded(file.read(limit), limit) if regular else b""


def _find(image: Image, path: Sequence[str]) -> int | None:
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


@contextmanager
def _folder(upper: str) -> Iterator[int]:
    """Open the directory of the files, made where it is missing.

    Programs of the image could have put links there, which are not followed.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    opened = [os.open(upper, flags)]
    try:
        for name in _FOLDERS:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=opened[-1])
            opened.append(os.open(name, flags | os.O_NOFOLLOW, dir_fd=opened[-1]))
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _replace(directory: int, name: str, data: bytes) -> None:
    """Put a file in the place of another in one step, on the disk when this returns."""
    new = f".{name}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(new, flags, 0o644, dir_fd=directory), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(new, dir_fd=directory)
            raise
    os.fsync(directory)
