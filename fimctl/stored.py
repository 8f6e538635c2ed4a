"""The settings that an image stores, read and written in its file, without the daemon.

The daemon reads an image anew at every start, and a writer lock and a journal in the image keep
writers apart and readers from seeing half of a change.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fimctl.environment import data_given, layers_given
from fimctl.errors import ClientError
from fimd.base.errors import FimError
from fimd.flatimage.errors import ImageError
from fimd.flatimage.file import open_image
from fimd.flatimage.layout import find_layout
from fimd.flatimage.reserved import Field, is_stored
from fimd.images.settings import ImageSettings

T = TypeVar("T")


@contextmanager
def _opened(image: str, *, writable: bool = False) -> Iterator[ImageSettings]:
    try:
        with open_image(image, writable=writable) as descriptor:
            layout = find_layout(descriptor)
            real, data = os.path.realpath(image), data_given()
            yield ImageSettings(descriptor, layout, real, data, lambda: layers_given(image))
    except (FimError, ImageError) as error:
        raise ClientError(str(error)) from error


@contextmanager
def _opened_to_change(image: str, field: Field[T]) -> Iterator[ImageSettings]:
    """Open an image for writing, but where the setting is not kept in the file itself."""
    with _opened(image) as settings:
        stored = is_stored(settings.layout, field)
        if not stored:
            yield settings
    if stored:
        with _opened(image, writable=True) as settings:
            yield settings


def reserved_offset(image: str) -> int:
    """Return where the image's reserved space begins. Raises ClientError, as all of these do."""
    with _opened(image) as settings:
        return settings.layout.reserved_offset


def read(image: str, field: Field[T]) -> T:
    """Return a setting, wherever the image's kind keeps it."""
    with _opened(image) as settings:
        return settings.read(field)


def write(image: str, field: Field[T], value: T) -> None:
    """Store a setting."""
    with _opened_to_change(image, field) as settings:
        settings.write(field, value)


def update(image: str, field: Field[T], change: Callable[[T], T]) -> T:
    """Store what `change` makes of a setting, with no other writer in between; return that."""
    with _opened_to_change(image, field) as settings:
        return settings.update(field, change)


def print_stored(text: bytes) -> None:
    """Print JSON as it is stored, on standard output. What is no text goes out as it is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.flush()
