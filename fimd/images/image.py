"""What an instance needs to know of its image, read in one go, and the settings that it can store.

Everything here reads or writes the image's file and is called from a thread.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from fimd.base.errors import AccessDeniedError, BusyError, NotAnImageError, NotFoundError
from fimd.flatimage.chain import read_chain
from fimd.flatimage.errors import BusyImageError, ImageError, ReadOnlyImageError, SettingsError
from fimd.flatimage.layout import find_layout
from fimd.flatimage.reserved import (
    BINDINGS,
    BOOT,
    CASEFOLD,
    DESKTOP,
    ENVIRONMENT,
    ICON,
    NOTIFY,
    OVERLAY,
    PERMISSIONS,
    UNSHARE,
    Field,
    is_stored,
)
from fimd.flatimage.settings import (
    DEFAULT_BOOT,
    Binding,
    Casefold,
    Desktop,
    Icon,
    Overlay,
    Permission,
    Unshare,
)
from fimd.images.settings import ImageSettings
from fimd.layers.resolve import Resolver
from fimd.layers.source import LayerSource

T = TypeVar("T")


@dataclass(frozen=True)
class ImageFacts:
    """An image as it is now: nothing of it is remembered by its path."""

    path: str
    reserved_offset: int
    layers: tuple[LayerSource, ...]
    overlay: str | None
    """The backend that the image asks for, None where it asks for none."""
    casefold: str
    environment: Mapping[str, str]
    boot: tuple[str, ...]
    warnings: tuple[str, ...]
    permissions: Permission = PERMISSIONS.unset
    bindings: tuple[Binding, ...] = ()
    unshare: Unshare = UNSHARE.unset
    desktop: Desktop | None = None
    """How the image is to be shown on the desktop, if at all: the client sees to it."""
    notify: bool = False
    """Whether its start is to be told there."""


_SHOWN: Final = (DESKTOP, NOTIFY)
"""What is for the desktop alone: where it is damaged, a program runs without."""


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    """Open an image; its errors become fimd's."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as error:
        verb = "read" if flags == os.O_RDONLY else "written"
        raise AccessDeniedError(f"{path} can't be {verb}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAnImageError(f"{path} is not a regular file, and so no FlatImage")
        yield descriptor
    except ReadOnlyImageError as error:
        raise AccessDeniedError(str(error)) from error
    except BusyImageError as error:
        raise BusyError(str(error)) from error
    except ImageError as error:
        raise NotAnImageError(str(error)) from error
    finally:
        os.close(descriptor)


def read_image(
    path: str, resolver: Resolver, data: str | None = None, external: Sequence[str] = ()
) -> ImageFacts:
    """Read an image's layers and settings. Raises NotFoundError or NotAnImageError.

    `data` is its data directory where that is not its own, `external` is FIM_LAYERS.
    """
    real = os.path.realpath(path)
    with _opened(real, os.O_RDONLY) as descriptor:
        layout = find_layout(descriptor)
        chain = read_chain(descriptor, layout)
        if not chain.layers:
            faults = "; ".join(map(str, chain.faults))
            raise NotAnImageError(f"{real} holds no whole layer{faults and f' ({faults})'}")

        warnings = [f"{real}: {fault}" for fault in chain.faults]
        settings = ImageSettings(descriptor, layout, real, data, lambda: external)

        def setting(field: Field[T]) -> T:
            try:
                return settings.read(field)
            except SettingsError as error:
                if is_stored(layout, field) and field not in _SHOWN:
                    raise
                warnings.append(f"{real}: {error}")
                return field.unset

        overlay = setting(OVERLAY)
        boot = setting(BOOT) or DEFAULT_BOOT
        desktop = setting(DESKTOP)
        environment, bindings = setting(ENVIRONMENT), setting(BINDINGS)
        return ImageFacts(
            path=real,
            reserved_offset=layout.reserved_offset,
            layers=tuple(resolver.embedded(real, descriptor, chain.layers)),
            overlay=overlay.name.lower() if overlay is not None else None,
            casefold=setting(CASEFOLD).name.lower(),
            environment=environment,
            boot=(boot.program, *boot.args),
            warnings=tuple(warnings),
            permissions=setting(PERMISSIONS),
            bindings=bindings,
            unshare=setting(UNSHARE),
            desktop=desktop,
            notify=desktop is not None and setting(NOTIFY),
        )


def read_icon(path: str) -> Icon | None:
    """Read the picture that an image has for desktops. Raises as `read_image`."""
    with _opened(path, os.O_RDONLY) as descriptor:
        return ImageSettings(descriptor, find_layout(descriptor), os.path.realpath(path)).read(ICON)


def write_overlay(path: str, overlay: str) -> None:
    """Store which overlay the image asks for."""
    _store(path, OVERLAY, Overlay[overlay.upper()])


def write_casefold(path: str, mode: str) -> None:
    """Store which case-insensitive view the image asks for: off, on or preserve."""
    _store(path, CASEFOLD, Casefold[mode.upper()])


def _store(path: str, field: Field[T], value: T) -> None:
    with _opened(path, os.O_RDWR) as descriptor:
        ImageSettings(descriptor, find_layout(descriptor), os.path.realpath(path)).write(
            field, value
        )
