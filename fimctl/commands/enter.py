"""`fimctl enter`: a command in the namespace in which everything is mounted, for a look at it."""

import argparse
import os
from typing import Any, Final

from fimctl.daemon import Daemon
from fimctl.environment import options_of_environment
from fimctl.errors import ClientError

_IN: Final = 'cd -- "$1" && shift && exec "$@"'


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "enter",
        help="run a command where layers and overlays are mounted",
        description="Run a command, a shell by default, in the namespace in which the layers and "
        "overlays of this user are mounted, and nobody else sees them. With an IMAGE it is "
        "mounted for that, and the command begins in its tree. This is no sandbox.",
    )
    parser.add_argument(
        "words",
        metavar="IMAGE | COMMAND",
        nargs=argparse.REMAINDER,
        help="an image, and the command with its arguments; each may be left out",
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Become the command."""
    words = list(arguments.words)
    image = words.pop(0) if words and _is_image(words[0]) else None
    if words[:1] == ["--"]:
        words = words[1:]
    command = words or [os.environ.get("SHELL") or "/bin/sh"]
    with Daemon() as daemon:
        join = daemon.join_namespace()
        if image is not None:
            command = ["sh", "-c", _IN, "sh", _mount(daemon, image), *command]
    argv = [*join, *command]
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argument list
    except OSError as error:
        raise ClientError(f"{argv[0]} can't be executed ({error.strerror})") from error


def _mount(daemon: Daemon, image: str) -> str:
    """Have an image mounted for this process, and return where its tree is."""
    options = {"mode": ("s", "exec"), **options_of_environment(image)}
    body = (os.fsencode(os.path.abspath(image)), options)
    instance, *_ = daemon.manager("StartInstance", "aya{sv}", body)
    return os.fsdecode(bytes(daemon.properties("Instance", instance)["Root"]))


def _is_image(path: str) -> bool:
    from fimd.flatimage.errors import ImageError  # noqa: PLC0415
    from fimd.flatimage.file import open_image  # noqa: PLC0415
    from fimd.flatimage.layout import find_layout  # noqa: PLC0415

    if "/" not in path or not os.path.isfile(path):
        return False
    try:
        with open_image(path) as descriptor:
            find_layout(descriptor)
    except ImageError:
        return False
    return True
