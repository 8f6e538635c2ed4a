"""What can be wrong with an image: one hierarchy, each message with the place of the fault."""

import contextlib
from collections.abc import Iterator
from typing import Self


class DwarfsError(Exception):
    """An image that cannot be read, or not be trusted.

    The parts that decode know what is wrong but not where they are in which file: they raise with
    the fault alone, and the parts that hold the file add the place with `at`.

    Attributes:
        fault: what is wrong, without the place.
        path: the file's name, "" while it is not known.
        offset: bytes from the start of the file, None where no one place is at fault.
        section: the section's name, "" outside of one.
    """

    def __init__(
        self, fault: str, *, path: str = "", offset: int | None = None, section: str = ""
    ) -> None:
        super().__init__(fault)
        self.fault = fault
        self.path = path
        self.offset = offset
        self.section = section

    def at(self, path: str = "", offset: int | None = None, section: str = "") -> Self:
        """Add what is not yet known of the place, and return the error itself."""
        self.path = self.path or path
        self.section = self.section or section
        if self.offset is None:
            self.offset = offset
        return self

    def __str__(self) -> str:
        place = [self.path] if self.path else []
        if self.section:
            place.append(f"section {self.section}")
        if self.offset is not None:
            place.append(f"offset {self.offset}")
        return f"{', '.join(place)}: {self.fault}" if place else self.fault


@contextlib.contextmanager
def located(path: str, offset: int | None = None, section: str = "") -> Iterator[None]:
    """Add the place to every DwarfsError from within that lacks one."""
    try:
        yield
    except DwarfsError as error:
        error.at(path, offset, section)
        raise


class NotAnImageError(DwarfsError):
    """The file, or this part of it, does not hold a DwarFS image."""


class DamagedError(DwarfsError):
    """The image breaks a rule of the format: cut short, overwritten, or made to mislead."""


class UnsupportedError(DwarfsError):
    """The image uses what this reader does not know: a newer version, feature or compression."""


class CodecMissingError(UnsupportedError):
    """The compression is known, but the package that decodes it is not installed."""


class CancelledError(DwarfsError):
    """The caller's `cancelled` said to stop; nothing is said about the image."""
