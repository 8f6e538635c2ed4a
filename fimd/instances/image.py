"""What an instance needs to know of its image, read in one go from a thread."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from fimd.errors import NotAnImageError, NotFoundError
from fimd.image import ImageError, find_layout, read_chain, read_settings
from fimd.layers.resolve import Resolver
from fimd.layers.source import LayerSource


@dataclass(frozen=True)
class ImageFacts:
    """An image as it is now: nothing of it is remembered by its path."""

    path: str
    reserved_offset: int
    layers: tuple[LayerSource, ...]
    overlay: str | None
    casefold: str
    environment: Mapping[str, str]
    boot: tuple[str, ...]
    warnings: tuple[str, ...]


def real_path(path: str) -> str:
    """Return the image's real path. Raises NotFoundError."""
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from error


def read_image(path: str, resolver: Resolver) -> ImageFacts:
    """Read an image's layers and settings. Raises NotFoundError or NotAnImageError."""
    path = real_path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFoundError(f"{path} can't be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAnImageError(f"{path} is not a regular file, and so no FlatImage")
        layout = find_layout(descriptor)
        chain = read_chain(descriptor, layout)
        settings = read_settings(descriptor, layout)
        if not chain.layers:
            raise NotAnImageError(f"{path} holds no layer: build it anew")
        return ImageFacts(
            path=path,
            reserved_offset=layout.reserved_offset,
            layers=tuple(resolver.embedded(path, descriptor, chain.layers)),
            overlay=settings.overlay,
            casefold=settings.casefold,
            environment=settings.environment,
            boot=settings.boot,
            warnings=tuple(str(fault) for fault in chain.faults),
        )
    except ImageError as error:
        raise NotAnImageError(str(error)) from error
    finally:
        os.close(descriptor)
