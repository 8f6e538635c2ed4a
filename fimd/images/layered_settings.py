"""The settings that a FlatImage 1.x keeps inside of its filesystem: fim/config/NAME.json.

The writable directory's counts, then that of the topmost layer that has one. A change is written to
the writable directory, where FlatImage 1.x looks first, and is committed with all that is there.

Programs of the image may have put anything there, so it is read and written in a jail.
"""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeVar

from fimd.base.errors import DataDirectoryError
from fimd.base.places import data_directory
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
from fimd.mounts.jail import call_apart, imprison
from fimd.stacks.data import opened_upper

T = TypeVar("T")

_FOLDERS: Final = ("fim", "config")
_CACHE: Final = 4 << 20
_MEMORY: Final = 1 << 30
_SECONDS: Final = 10.0


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
    """Those of one image. `layers` are all that it has, base first.

    `data` is its data directory, where that is not its own.
    """

    image: str
    layers: Sequence[LayerPlace]
    data: str | None

    def read(self, field: Field[T]) -> T:
        """Return a setting. Raises SettingsError for one that is damaged."""
        form: Field[T] | None = _FIELDS.get(field.name)
        if form is None:
            return field.unset
        name = _name(field)
        try:
            found = self._in_upper.get(name)
            data = _bounded(self._in_layers.get(name, b"") if found is None else found, form.size)
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
        arguments = {**self._place, "name": _name(field), "text": os.fsdecode(data)}
        call_apart(f"{__name__}:write_in_jail", arguments)

    @property
    def _place(self) -> dict[str, Any]:
        return {"image": self.image, "data": self.data or data_directory(self.image)}

    @cached_property
    def _in_upper(self) -> Mapping[str, bytes]:
        """The file of each name that is in the upper; what is no file there is empty."""
        found = call_apart(f"{__name__}:read_in_jail", self._place)
        return {name: os.fsencode(text) for name, text in found.items()}

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


def read_in_jail(arguments: dict[str, Any], _files: list[int]) -> dict[str, str]:
    """Return what `LayeredSettings` finds in the upper, by this process, which is imprisoned."""
    found = {}
    with opened_upper(arguments["image"], arguments["data"]) as upper:
        if upper is None:
            return {}
        imprison(upper, memory=_MEMORY, seconds=_SECONDS)
        with suppress(FileNotFoundError, NotADirectoryError), _folder(upper) as folder:
            for form in _FIELDS.values():
                data = _read(folder, _name(form), form.size)
                if data is not None:
                    found[_name(form)] = os.fsdecode(data)
    return found


def write_in_jail(arguments: dict[str, Any], _files: list[int]) -> None:
    """Write one of the files by this process, which is imprisoned."""
    name = arguments["name"]
    with opened_upper(arguments["image"], arguments["data"]) as upper:
        if upper is None:
            raise DataDirectoryError(f"there are no changes of {arguments['image']} to write to")
        imprison(upper, memory=_MEMORY, seconds=_SECONDS)
        try:
            with _folder(upper, create=True) as folder:
                _replace(folder, name, os.fsencode(arguments["text"]))
        except OSError as error:
            raise DataDirectoryError(
                f"{'/'.join((*_FOLDERS, name))} can't be written: {error.strerror}"
            ) from error


def _read(folder: int, name: str, limit: int) -> bytes | None:
    """Return a file's bytes; None where there is none, nothing where it was deleted."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:
        return b""  # a device that stands for a deletion, or a link
    with open(descriptor, "rb") as file:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return file.read(limit) if regular else b""


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
def _folder(upper: int, *, create: bool = False) -> Iterator[int]:
    """Open the directory of the files, made where it is missing and that is wanted.

    Programs of the image could have put links there, which are not followed.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = [os.dup(upper)]
    try:
        for name in _FOLDERS:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=opened[-1])
            opened.append(os.open(name, flags, dir_fd=opened[-1]))
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
