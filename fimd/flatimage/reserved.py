"""The table of settings in an image's reserved space: where each field is, reading, writing.

FlatImage's encoding, 2.x and the subset that 1.x has. A field that was never written is all zeros.
"""

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from . import journal, settings
from .errors import SettingsError, SettingTooLargeError
from .file import exclusive, name_of, sync, write_at, write_errors
from .layout import MIB, Kind, Layout
from .settings import Binding, Boot, Casefold, Desktop, Icon, Overlay, Permission, Unshare

T = TypeVar("T")
F = TypeVar("F", bound=enum.IntFlag)

FIRST_READ: Final = 4096  # most texts are shorter, and the larger fields are a mebibyte

DEFAULT_REMOTE: Final = "https://raw.githubusercontent.com/flatimage/recipes/master"


@dataclass(frozen=True, slots=True)
class Field(Generic[T]):
    """A field of the table: its name, place and size in bytes, and how its value is encoded.

    `unset` is the value of a field that is all zeros, and is written as such. `offset_v1` is the
    place in a 1.x image, None where that keeps the setting inside its layers. A text ends at its
    first NUL. `switch`, start and length, is the part of the field without which it is empty.
    """

    name: str
    offset: int
    size: int
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    unset: T
    offset_v1: int | None = None
    is_text: bool = True
    switch: tuple[int, int] = (0, 1)


def _flags(name: str, offset: int, size: int, kind: type[F], v1: int | None = None) -> Field[F]:
    return Field(
        name,
        offset,
        size,
        encode=lambda value: (value & ((1 << size * 8) - 1)).to_bytes(size, "little"),
        decode=lambda data: kind(int.from_bytes(data, "little")),
        unset=kind(0),
        offset_v1=v1,
        is_text=False,
        switch=(0, size),
    )


def _optional(encode: Callable[[T], bytes]) -> Callable[[T | None], bytes]:
    return lambda value: b"" if value is None else encode(value)


def _decode_overlay(data: bytes) -> Overlay | None:
    return Overlay(data[0]) if data[0] in set(Overlay) else None


def _decode_casefold(data: bytes) -> Casefold:
    return Casefold(data[0]) if data[0] in set(Casefold) else Casefold.ON


PERMISSIONS: Final = _flags("permissions", 0, 8, Permission, 0)
NOTIFY: Final[Field[bool]] = Field(
    "notify", 8, 1, lambda on: bytes([on]), lambda data: data[0] != 0, False, 8, is_text=False
)
OVERLAY: Final[Field[Overlay | None]] = Field(
    "overlay", 9, 1, lambda value: bytes([value or 0]), _decode_overlay, None, is_text=False
)
CASEFOLD: Final[Field[Casefold]] = Field(
    "casefold", 10, 1, lambda value: bytes([value]), _decode_casefold, Casefold.OFF, is_text=False
)
DESKTOP: Final[Field[Desktop | None]] = Field(
    "desktop", 11, 4096, _optional(settings.encode_desktop), settings.decode_desktop, None, 9
)
BOOT: Final[Field[Boot | None]] = Field(
    "boot", 4107, 8192, _optional(settings.encode_boot), settings.decode_boot, None
)
ICON: Final[Field[Icon | None]] = Field(
    "icon",
    12_299,
    MIB,
    _optional(settings.encode_icon),
    settings.decode_icon,
    None,
    offset_v1=MIB,
    is_text=False,
    switch=(MIB - 8, 8),
)
ENVIRONMENT: Final[Field[Mapping[str, str]]] = Field(
    "environment",
    1_060_875,
    MIB,
    settings.encode_environment,
    settings.decode_environment,
    MappingProxyType({}),
)
BINDINGS: Final[Field[tuple[Binding, ...]]] = Field(
    "bindings", 2_109_451, MIB, settings.encode_bindings, settings.decode_bindings, ()
)
REMOTE: Final[Field[str | None]] = Field(
    "remote", 3_158_027, 4096, _optional(settings.encode_remote), settings.decode_remote, None
)
UNSHARE: Final = _flags("unshare", 3_162_123, 2, Unshare)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of an image. What a 1.x image keeps in its layers is unset here."""

    permissions: Permission = PERMISSIONS.unset
    notify: bool = False
    overlay: Overlay | None = None
    casefold: Casefold = Casefold.OFF
    desktop: Desktop | None = None
    boot: Boot | None = None
    icon: Icon | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    remote: str | None = None
    unshare: Unshare = UNSHARE.unset


FRESH: Final = Settings(remote=DEFAULT_REMOTE)
"""What a new FlatImage holds."""


def is_stored(layout: Layout, field: Field[T]) -> bool:
    """Whether images of this kind keep the setting in the reserved space."""
    return layout.kind is not Kind.ELF_V1 or field.offset_v1 is not None


def read_field(fd: int, layout: Layout, field: Field[T]) -> T:
    """The value of one field of the open image, reading no more of the file than that takes.

    Raises SettingsError where it is damaged, or is not kept in images of this kind.
    """
    offset = _offset(fd, layout, field)
    if not any(_read_switch(fd, layout, offset, field)):
        return field.unset
    data = _read(fd, layout, offset, field)
    try:
        return field.decode(data)
    except ValueError as error:
        raise SettingsError(
            f"the setting '{field.name}' of {name_of(fd)}, at offset "
            f"{layout.reserved_offset + offset}, is damaged: {error}. Clear it or set it anew"
        ) from error


def read_settings(fd: int, layout: Layout) -> Settings:
    """Every setting that images of this kind keep in the reserved space.

    Raises SettingsError where one is damaged.
    """

    def value(field: Field[T]) -> T:
        return read_field(fd, layout, field) if is_stored(layout, field) else field.unset

    return Settings(
        permissions=value(PERMISSIONS),
        notify=value(NOTIFY),
        overlay=value(OVERLAY),
        casefold=value(CASEFOLD),
        desktop=value(DESKTOP),
        boot=value(BOOT),
        icon=value(ICON),
        environment=value(ENVIRONMENT),
        bindings=value(BINDINGS),
        remote=value(REMOTE),
        unshare=value(UNSHARE),
    )


def write_field(fd: int, layout: Layout, field: Field[T], value: T, *, wait: float = 5.0) -> None:
    """Store `value` in the image open for writing; on the disk when this returns.

    A crash leaves the old value or the new one. Waits up to `wait` seconds for the writer lock.
    Raises SettingTooLargeError or SettingsError, with the old value kept, where it cannot be
    stored.
    """
    data = encode_field(field, value, name_of(fd))
    offset = _offset(fd, layout, field)
    with exclusive(fd, wait):
        _write(fd, layout, offset, field, data)


def update_field(
    fd: int, layout: Layout, field: Field[T], change: Callable[[T], T], *, wait: float = 5.0
) -> T:
    """Store what `change` makes of the present value, with no other writer in between."""
    with exclusive(fd, wait):
        value = change(read_field(fd, layout, field))
        data = encode_field(field, value, name_of(fd))
        _write(fd, layout, _offset(fd, layout, field), field, data)
    return value


def encode_settings(values: Settings, image: str) -> list[tuple[int, bytes]]:
    """Offset in the table and bytes of each setting that is not unset, for the image so named."""

    def part(field: Field[T], value: T) -> tuple[int, bytes]:
        return field.offset, encode_field(field, value, image)

    parts = [
        part(PERMISSIONS, values.permissions),
        part(NOTIFY, values.notify),
        part(OVERLAY, values.overlay),
        part(CASEFOLD, values.casefold),
        part(DESKTOP, values.desktop),
        part(BOOT, values.boot),
        part(ICON, values.icon),
        part(ENVIRONMENT, values.environment),
        part(BINDINGS, values.bindings),
        part(REMOTE, values.remote),
        part(UNSHARE, values.unshare),
    ]
    return [(offset, data) for offset, data in parts if any(data)]


def _offset(fd: int, layout: Layout, field: Field[T]) -> int:
    if layout.kind is not Kind.ELF_V1:
        return field.offset
    if field.offset_v1 is None:
        raise SettingsError(
            f"{name_of(fd)} is a FlatImage 1.x, which has no '{field.name}' in its reserved space: "
            f"where it has one, that is fim/config/{field.name}.json in its layers"
        )
    return field.offset_v1


def encode_field(field: Field[T], value: T, image: str) -> bytes:
    """The bytes of a setting of the image so named; none for what is unset.

    Raises SettingsError for what can't be, SettingTooLargeError where the field is too small.
    """
    if value == field.unset:
        return b""
    if isinstance(value, Icon) and len(value.data) > settings.ICON_DATA_LIMIT:
        raise SettingTooLargeError(
            f"File is too large, '{len(value.data)}' bytes: an icon may have "
            f"{settings.ICON_DATA_LIMIT}"
        )
    try:
        data = field.encode(value)
    except ValueError as error:
        raise SettingsError(f"'{field.name}' of {image} cannot be that: {error}") from error
    if field.is_text and len(data) >= field.size:
        raise SettingTooLargeError(
            f"Not enough space to fit json data: '{field.name}' of {image} would take "
            f"{len(data)} bytes, and {field.size - 1} is the most"
        )
    return data


def _read_switch(fd: int, layout: Layout, offset: int, field: Field[T]) -> bytes:
    start, length = field.switch
    return journal.read(fd, layout, offset + start, length)


def _read(fd: int, layout: Layout, offset: int, field: Field[T]) -> bytes:
    if not field.is_text:
        return journal.read(fd, layout, offset, field.size)
    data = journal.read(fd, layout, offset, min(FIRST_READ, field.size))
    if b"\0" not in data and len(data) < field.size:
        data = journal.read(fd, layout, offset, field.size)
    return data.partition(b"\0")[0]


def _write(fd: int, layout: Layout, offset: int, field: Field[T], data: bytes) -> None:
    """Write the field, and zeros as far as the old value went."""
    old = _read(fd, layout, offset, field)
    data = data.ljust(min(max(len(data) + 1, len(old)), field.size), b"\0")
    if journal.write(fd, layout, offset, data):
        return
    # More than a mebibyte that hardly compresses: no journal holds it. The field is made empty
    # first and gets what makes it whole last; a crash may lose the old value, but leaves no ruin.
    position = layout.reserved_offset + offset
    start, length = field.switch
    with write_errors(fd):
        os.posix_fallocate(fd, position, len(data))
    write_at(fd, position + start, bytes(length))
    sync(fd)
    write_at(fd, position, data[:start] + bytes(length) + data[start + length :])
    sync(fd)
    write_at(fd, position + start, data[start : start + length])
    sync(fd)
