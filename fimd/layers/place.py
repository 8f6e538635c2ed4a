"""Where a layer is."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from fimd.base.errors import BadLayerError


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Where a layer's bytes are: a file, and the offset and size in it."""

    path: str
    offset: int
    size: int
    descriptor: int | None = None
    """The file, where it is open already: for who can't reach its path."""


@contextmanager
def opened_files(places: Sequence[LayerPlace]) -> Iterator[tuple[LayerPlace, ...]]:
    """Open the layers' files, each once, for who is about to enter a jail.

    Raises BadLayerError for one that can't be opened.
    """
    files: dict[str, int] = {}
    with ExitStack() as stack:
        for place in places:
            if place.path in files:
                continue
            try:
                # a fifo in a layer's place must not hang the caller
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
                files[place.path] = os.open(place.path, flags)
            except OSError as error:
                raise BadLayerError(f"layer {place.path}: {error.strerror}") from error
            stack.callback(os.close, files[place.path])
        yield tuple(replace(place, descriptor=files[place.path]) for place in places)
