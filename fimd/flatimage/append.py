"""Adding a layer to an image, and taking the topmost away, so that no crash leaves half of it.

The steps of an append, each on the disk before the next begins:

1. zeros where the length word and the DwarFS header go, and after them the payload;
2. the header;
3. the length word, which publishes the layer.

Killed during 1, the image ends in a record that begins with zeros, which the next append cuts off.
Killed between 2 and 3, the layer is whole but for its length word, and the next append writes that.
So no reader ever sees half a layer, and nothing that could be somebody's only copy is cut off.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .chain import LENGTH, Chain, EmbeddedLayer, read_chain
from .copy import Cancelled, Progress, copy_range, ignore_progress, never_cancelled
from .errors import DamagedImageError, ImageError, NotALayerError
from .file import exclusive, name_of, read_exactly, size_of, sync, write_at, write_errors
from .layout import find_layout
from .section import HEADER, is_whole

Step = Callable[[str], None]
"""Told the name of each step as it is done: `payload`, `header`, `published`."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: the new layer, and what an interrupted one had left.

    `cut_bytes` were cut off, `recovered` was complete and got its length word.
    """

    layer: EmbeddedLayer
    cut_bytes: int = 0
    recovered: EmbeddedLayer | None = None


def append_layer(
    image: int,
    source: int,
    size: int | None = None,
    *,
    source_offset: int = 0,
    progress: Progress = ignore_progress,
    cancelled: Cancelled = never_cancelled,
    verify: Callable[[EmbeddedLayer], None] | None = None,
    after: Step | None = None,
    wait: float = 0.0,
) -> Appended:
    """Put the DwarFS image in `source` on top of the chain of the image open for writing.

    `size` bytes from `source_offset` on, or all to the end. `verify` may look at the copy in the
    image before it is published, and raise. Waits up to `wait` seconds for the writer lock. Blocks
    for as long as copying and syncing take. Whatever is raised, the image is as it was.
    """
    size = size_of(source) - source_offset if size is None else size
    if size <= 0 or not is_whole(source, source_offset, size):
        raise NotALayerError(
            f"{name_of(source)} holds no complete DwarFS image of {size} bytes at offset "
            f"{source_offset}, so it cannot become a layer: create it anew"
        )
    step = after or _no_step
    with exclusive(image, wait):
        chain, cut, recovered = _settle(image)
        layer = EmbeddedLayer(chain.end + LENGTH.size, size)
        with _truncated_back(image, chain.end):
            head = min(HEADER.size, size)
            header = read_exactly(source, source_offset, head, "the layer's header")
            write_at(image, chain.end, bytes(LENGTH.size + head))
            copy_range(
                source,
                source_offset + head,
                image,
                layer.offset + head,
                size - head,
                progress,
                cancelled,
            )
            sync(image)
            step("payload")
            write_at(image, layer.offset, header)
            sync(image)
            if verify is not None:
                verify(layer)
            step("header")
            write_at(image, layer.record_offset, LENGTH.pack(size))
            sync(image)
        step("published")
    return Appended(layer, cut, recovered)


def remove_last_layer(image: int, layer: EmbeddedLayer, *, wait: float = 0.0) -> None:
    """Take `layer`, which has to be the topmost, off the image open for writing.

    Raises ImageError where it is not the topmost, or is the base layer, which an image needs.
    """
    with exclusive(image, wait):
        chain, _cut, _recovered = _settle(image)
        if not chain.layers or chain.layers[-1] != layer:
            raise ImageError(
                f"the layer at offset {layer.offset} is not the topmost of {name_of(image)} any "
                "more: list the layers again"
            )
        if len(chain.layers) == 1:
            raise ImageError(f"{name_of(image)} has its base layer only, which cannot be removed")
        _truncate(image, layer.record_offset)


def settle(image: int, *, wait: float = 0.0) -> Chain:
    """Finish or cut off what an interrupted append left in the image open for writing."""
    with exclusive(image, wait):
        return _settle(image)[0]


def _settle(image: int) -> tuple[Chain, int, EmbeddedLayer | None]:
    """The chain once its end is sound, the bytes cut off, and the layer recovered."""
    layout = find_layout(image)
    chain = read_chain(image, layout)
    if chain.torn_offset is not None:
        cut = chain.end - chain.torn_offset
        _truncate(image, chain.torn_offset)
        return read_chain(image, layout), cut, None
    last = chain.faults[-1] if chain.faults else None
    if last is None or last.end < chain.end:
        return chain, 0, None
    if last.hidden is not None:
        write_at(image, last.offset, LENGTH.pack(last.hidden.size))
        sync(image)
        return read_chain(image, layout), 0, last.hidden
    raise DamagedImageError(
        f"{name_of(image)} ends in something that is no layer, {last}. A layer after it might not "
        f"be found: once you know that it is not needed, cut it off with "
        f"«truncate -s {last.offset} FILE»"
    )


@contextmanager
def _truncated_back(image: int, size: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _truncate(image, size)
        raise


def _truncate(image: int, size: int) -> None:
    with write_errors(image):
        os.ftruncate(image, size)
    sync(image)


def _no_step(_name: str) -> None:
    pass
