"""The settings that an image stores, read and written in its file, without the daemon.

The daemon reads an image anew at every start, and a writer lock and a journal in the image keep
writers apart and readers from seeing half of a change.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fimctl.errors import ClientError
from fimd.image.chain import read_chain
from fimd.image.errors import ImageError
from fimd.image.file import open_image
from fimd.image.layout import Layout, find_layout
from fimd.image.reserved import Field, is_stored, read_field, update_field, write_field
from fimd.paths import data_directory

T = TypeVar("T")


@contextmanager
def _opened(image: str, *, writable: bool = False) -> Iterator[tuple[int, Layout]]:
    try:
        with open_image(image, writable=writable) as descriptor:
            yield descriptor, find_layout(descriptor)
    except ImageError as error:
        raise ClientError(str(error)) from error


def data_of(image: str) -> str:
    """Return the image's data directory, which FIM_DIR_DATA may move."""
    given = os.environ.get("FIM_DIR_DATA")
    return os.path.abspath(given or data_directory(os.path.realpath(image)))


def reserved_offset(image: str) -> int:
    """Return where the image's reserved space begins. Raises ClientError, as all of these do."""
    with _opened(image) as (_, layout):
        return layout.reserved_offset


def read(image: str, field: Field[T]) -> T:
    """Return a setting, wherever the image's kind keeps it."""
    with _opened(image) as (descriptor, layout):
        if is_stored(layout, field):
            return read_field(descriptor, layout, field)
        from fimd.instances.layered_settings import read_layered  # noqa: PLC0415 - 1.x alone

        layers = read_chain(descriptor, layout).layers
        return read_layered(descriptor, layers, os.path.join(data_of(image), "root"), field)


def write(image: str, field: Field[T], value: T) -> None:
    """Store a setting."""
    with _opened(image, writable=True) as (descriptor, layout):
        write_field(descriptor, layout, field, value)


def update(image: str, field: Field[T], change: Callable[[T], T]) -> T:
    """Store what `change` makes of a setting, with no other writer in between; return that."""
    with _opened(image, writable=True) as (descriptor, layout):
        return update_field(descriptor, layout, field, change)


def print_stored(text: bytes) -> None:
    """Print JSON as it is stored, on standard output. What is no text goes out as it is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.flush()
