"""The command line of an image itself: `fimctl app IMAGE WORDS...`, which an image executes."""

from __future__ import annotations

import os

from fimctl.errors import ClientError, WordsError
from fimctl.launch import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

# A command's module has `image_command(image, words) -> int`, and is imported when it is needed.
_COMMANDS: Final = (
    *("bind", "boot", "casefold", "desktop", "env", "help", "instance", "layer", "notify"),
    *("overlay", "perms", "recipe", "remote", "unshare", "version"),
)


def app(image: str, words: list[str]) -> int:
    """Do what an image was asked to do; returns only where no program was started."""
    first = words[0] if words else ""
    is_program = not first.startswith("fim-") or first in {"fim-exec", "fim-root"}
    try:
        if is_program:
            _launch(image, first, words)
        return _command(image, first.removeprefix("fim-"), words[1:])
    except ClientError as error:
        from fimctl import messages  # noqa: PLC0415 - a program starts without it

        messages.report(error, brief=is_program)
        return error.code


def _launch(image: str, first: str, words: list[str]) -> None:
    if not first.startswith("fim-"):
        launch(image, "boot", words, _executed(image))
    if len(words) < 2:
        raise WordsError(f"Incorrect number of arguments for {first}")
    launch(image, first.removeprefix("fim-"), words[1:], _executed(image))


def _executed(image: str) -> dict[str, tuple[str, bool]]:
    """Tell the daemon whether the file may be executed: a desktop opens others as well."""
    return {"executed": ("b", os.access(image, os.X_OK))}


def _command(image: str, name: str, words: list[str]) -> int:
    if name not in _COMMANDS:
        raise ClientError(f"Unknown command: fim-{name}", context="Invalid fim command")
    # a program starts without these
    from importlib import import_module  # noqa: PLC0415

    from fimctl.preparation import prepare  # noqa: PLC0415

    prepare(image)
    handler: Callable[[str, list[str]], int] = import_module(
        f"fimctl.commands.{name}"
    ).image_command
    return handler(image, words)
