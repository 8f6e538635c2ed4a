"""The options that methods take last: a{sv}, checked name by name."""

import os
from collections.abc import Mapping
from typing import Any

from dbus_next.signature import Variant

from fimd.base.errors import InvalidArgumentError
from fimd.base.texts import printable


class Options:
    """Options of one call. Each is taken once; what nobody takes is refused by `finish`."""

    def __init__(self, options: Mapping[str, Variant]) -> None:
        self._left = dict(options)

    def take(self, name: str, signature: str, default: Any = None) -> Any:
        """Return the option's value, or `default`. Raises InvalidArgumentError for another type."""
        variant = self._left.pop(name, None)
        if variant is None:
            return default
        if variant.signature != signature:
            raise InvalidArgumentError(
                f"option {name} is of type {signature}, not {variant.signature}"
            )
        return variant.value

    def take_path(self, name: str) -> str | None:
        """Return an option of type ay as a path."""
        value = self.take(name, "ay")
        return None if value is None else decode_path(value)

    def take_paths(self, name: str) -> list[str]:
        """Return an option of type aay as paths."""
        return [decode_path(value) for value in self.take(name, "aay", [])]

    def finish(self) -> None:
        """Refuse what is left, so that no typing error goes unnoticed."""
        if self._left:
            raise InvalidArgumentError(f"there is no option {min(self._left)!r} here")


def decode_path(value: bytes) -> str:
    """Read a path that travelled as ay, with or without the NUL that C programs add.

    Raises InvalidArgumentError for one that is none.
    """
    path = os.fsdecode(bytes(value).removesuffix(b"\0"))
    if "\0" in path:
        raise InvalidArgumentError(f"{printable(path)} is no path: there is a NUL byte in it")
    return path


def plain_text(message: str) -> str:
    """Return a message as D-Bus can carry it, and whoever gets it can show it."""
    return printable(message)


def encode_path(path: str) -> bytes:
    """Return a path as it travels: ay without a NUL."""
    return os.fsencode(path)
