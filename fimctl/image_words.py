"""The command line of an image itself: `fimctl app IMAGE WORDS...`, which an image executes."""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from fimctl.errors import ClientError
from fimctl.launch import launch

Handler = Callable[[str, list[str]], int]

# A command's module has `image_command(image, words) -> int`, and is imported when it is needed.
_MODULES: Final = {
    "fim-overlay": "fimctl.commands.overlay",
    "fim-casefold": "fimctl.commands.casefold",
}


def app(image: str, words: list[str]) -> int:
    """Do what an image was asked to do; returns only where that was no program."""
    first = words[0] if words else ""
    if not first.startswith("fim-"):
        launch(image, "boot", words)
    if first in {"fim-exec", "fim-root"}:
        if len(words) < 2:
            raise ClientError(f"Incorrect number of arguments for {first}")
        launch(image, first.removeprefix("fim-"), words[1:])
    if first not in _MODULES:
        raise ClientError(f"Unknown command: {first}")
    handler: Handler = import_module(_MODULES[first]).image_command
    return handler(image, words[1:])
