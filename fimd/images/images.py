"""The images that this user has run or opened, with their facts and settings."""

import asyncio
import os
from dataclasses import dataclass, field
from typing import Protocol

from fimd.base.errors import InvalidArgumentError
from fimd.base.observe import Collection, Event, Observable
from fimd.base.places import data_directory, image_id
from fimd.casefold.mount import MODES as CASEFOLD_MODES
from fimd.images.image import ImageFacts, read_image, write_casefold, write_overlay
from fimd.layers.resolve import Resolver
from fimd.layers.source import LayerSource
from fimd.overlays import BACKENDS, DEFAULT


class Running(Protocol):
    """An instance of an image, as far as this room knows of instances."""

    @property
    def id(self) -> str:
        """The instance's identifier."""

    @property
    def facts(self) -> ImageFacts:
        """The image as it was when the instance was started."""

    @property
    def data(self) -> str:
        """The data directory that the instance uses."""

    @property
    def started_at(self) -> float:
        """Seconds since the epoch."""


@dataclass
class Image:
    """An image as it was last read. Its owner is Images; others look."""

    facts: ImageFacts
    data: str
    """The data directory by which it was last opened or run."""
    managed: tuple[LayerSource, ...] = ()
    instances: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The image's identifier."""
        return image_id(self.facts.path)

    @property
    def overlay(self) -> str:
        """The overlay that the next instance gets."""
        return self.facts.overlay or DEFAULT

    @property
    def layers(self) -> tuple[LayerSource, ...]:
        """The chain and the managed layers, base first."""
        return (*self.facts.layers, *self.managed)


class Images:
    """All images that were run or opened since the daemon started."""

    def __init__(self, resolver: Resolver, running: Observable[Running]) -> None:
        self._resolver = resolver
        self.opened: Collection[Image] = Collection()
        running.subscribe(self._on_instance)

    async def open(self, path: str, data: str | None = None) -> Image:
        """Read an image anew, with its own data directory or another one.

        Raises NotFoundError or NotAnImageError.
        """
        for given in (path, data or "/"):
            if not given.startswith("/"):
                raise InvalidArgumentError(f"{given!r} is not an absolute path")
        return self._update(*await asyncio.to_thread(self._read, path, data))

    def _read(self, path: str, data: str | None) -> tuple[ImageFacts, str, tuple[LayerSource, ...]]:
        facts = read_image(path, self._resolver, data)
        place = data or data_directory(facts.path)
        directory = os.path.join(place, "layers")
        present = [directory] if os.path.isdir(directory) else []
        return facts, place, tuple(self._resolver.external(present, []))

    def _update(
        self, facts: ImageFacts, data: str, managed: tuple[LayerSource, ...] | None
    ) -> Image:
        image = self.opened.get(image_id(facts.path))
        if image is None:
            image = Image(facts, data, managed or ())
            self.opened.add(image.id, image)
            return image
        image.facts = facts
        image.data = data
        if managed is not None:
            image.managed = managed
        self.opened.changed(image.id)
        return image

    def _on_instance(self, event: Event, key: str, instance: Running) -> None:
        image = self._update(instance.facts, instance.data, None)
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
        await self.open(image.facts.path, image.data)

    async def set_casefold(self, image: Image, mode: str) -> None:
        """Store the case-insensitive view's mode. Raises as `set_overlay`."""
        if mode not in CASEFOLD_MODES:
            raise InvalidArgumentError(f"casefold {mode!r} is none of {', '.join(CASEFOLD_MODES)}")
        await asyncio.to_thread(write_casefold, image.facts.path, mode)
        await self.open(image.facts.path, image.data)
