"""The images that this user has run or opened, with their facts and settings."""

import asyncio
import os
from dataclasses import dataclass, field

from fimd.errors import InvalidArgumentError
from fimd.instances.image import ImageFacts, read_image, write_casefold, write_overlay
from fimd.instances.instance import Instance
from fimd.instances.instances import DEFAULT_OVERLAY, Instances
from fimd.instances.stack import CASEFOLD_MODES
from fimd.layers.resolve import Resolver
from fimd.layers.source import LayerSource
from fimd.observe import Collection, Event
from fimd.overlays import BACKENDS
from fimd.paths import data_directory, image_id


@dataclass
class Image:
    """An image as it was last read. Its owner is Images; others look."""

    facts: ImageFacts
    managed: tuple[LayerSource, ...] = ()
    instances: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The image's identifier."""
        return image_id(self.facts.path)

    @property
    def data(self) -> str:
        """The data directory that the image has by default."""
        return data_directory(self.facts.path)

    @property
    def overlay(self) -> str:
        """The overlay that the next instance gets."""
        overlay = self.facts.overlay or DEFAULT_OVERLAY
        return "unionfs" if self.facts.casefold != "off" and overlay == "bwrap" else overlay

    @property
    def layers(self) -> tuple[LayerSource, ...]:
        """The chain and the managed layers, base first."""
        return (*self.facts.layers, *self.managed)


class Images:
    """All images that were run or opened since the daemon started."""

    def __init__(self, resolver: Resolver, instances: Instances) -> None:
        self._resolver = resolver
        self.opened: Collection[Image] = Collection()
        instances.running.subscribe(self._on_instance)

    async def open(self, path: str) -> Image:
        """Read an image anew. Raises NotFoundError or NotAnImageError."""
        if not path.startswith("/"):
            raise InvalidArgumentError(f"{path!r} is not an absolute path")
        facts, managed = await asyncio.to_thread(self._read, path)
        return self._update(facts, managed)

    def _read(self, path: str) -> tuple[ImageFacts, tuple[LayerSource, ...]]:
        facts = read_image(path, self._resolver)
        directory = os.path.join(data_directory(facts.path), "layers")
        present = [directory] if os.path.isdir(directory) else []
        return facts, tuple(self._resolver.external(present, []))

    def _update(self, facts: ImageFacts, managed: tuple[LayerSource, ...] | None) -> Image:
        image = self.opened.get(image_id(facts.path))
        if image is None:
            image = Image(facts, managed or ())
            self.opened.add(image.id, image)
            return image
        image.facts = facts
        if managed is not None:
            image.managed = managed
        self.opened.changed(image.id)
        return image

    def _on_instance(self, event: Event, key: str, instance: Instance) -> None:
        image = self._update(instance.facts, None)
        if event is Event.REMOVED:
            image.instances.discard(key)
        else:
            image.instances.add(key)
        self.opened.changed(image.id)

    async def set_overlay(self, image: Image, overlay: str) -> None:
        """Store the overlay in the image. Raises InvalidArgumentError or AccessDeniedError."""
        if overlay not in BACKENDS:
            raise InvalidArgumentError(f"overlay {overlay!r} is none of {', '.join(BACKENDS)}")
        await asyncio.to_thread(write_overlay, image.facts.path, overlay)
        await self.open(image.facts.path)

    async def set_casefold(self, image: Image, mode: str) -> None:
        """Store the case-insensitive view's mode. Raises as `set_overlay`."""
        if mode not in CASEFOLD_MODES:
            raise InvalidArgumentError(f"casefold {mode!r} is none of {', '.join(CASEFOLD_MODES)}")
        await asyncio.to_thread(write_casefold, image.facts.path, mode)
        await self.open(image.facts.path)
