"""An image's settings, wherever its kind keeps them: in its reserved space, or in its layers."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from fimd.base.places import data_directory
from fimd.commits.lock import exclusive
from fimd.flatimage.chain import read_chain
from fimd.flatimage.layout import Layout
from fimd.flatimage.reserved import Field, is_stored, read_field, update_field, write_field
from fimd.stacks.data import DataDirectory

if TYPE_CHECKING:
    from fimd.images.layered_settings import LayeredSettings

T = TypeVar("T")


@dataclass(frozen=True)
class ImageSettings:
    """Settings of the image that is open at a descriptor. Raises ImageError, as the library does.

    `path` is its real path. What is inside of layers depends on the data directory (`data`, where
    that is not the image's own) and on further layers (`external`, FIM_LAYERS).
    """

    descriptor: int
    layout: Layout
    path: str
    data: str | None = None
    external: Callable[[], Sequence[str]] = tuple

    def read(self, field: Field[T]) -> T:
        """Return a setting."""
        if is_stored(self.layout, field):
            return read_field(self.descriptor, self.layout, field)
        return self._layered.read(field)

    def write(self, field: Field[T], value: T) -> None:
        """Store a setting."""
        if is_stored(self.layout, field):
            write_field(self.descriptor, self.layout, field, value)
            return
        self.update(field, lambda _: value)

    def update(self, field: Field[T], change: Callable[[T], T]) -> T:
        """Store what `change` makes of a setting, with no other writer in between; return that."""
        if is_stored(self.layout, field):
            return update_field(self.descriptor, self.layout, field, change)
        with DataDirectory.of(self.path, self.data).opened() as data, exclusive(data):
            value = change(self._layered.read(field))
            self._layered.write(field, value)
        return value

    @cached_property
    def _layered(self) -> "LayeredSettings":
        from fimd.images.layered_settings import LayeredSettings  # noqa: PLC0415 - 1.x alone
        from fimd.layers.place import LayerPlace  # noqa: PLC0415
        from fimd.layers.resolve import Resolver  # noqa: PLC0415

        managed = os.path.join(self.data or data_directory(self.path), "layers")
        present = [managed] if os.path.isdir(managed) else []
        chain = read_chain(self.descriptor, self.layout).layers
        above = Resolver().external([*self.external(), *present], [])
        places = [
            *(LayerPlace(self.path, layer.offset, layer.size) for layer in chain),
            *(LayerPlace(layer.path, layer.offset, layer.size) for layer in above),
        ]
        return LayeredSettings(self.path, places, self.data)
