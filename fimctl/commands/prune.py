"""`fimctl prune`: unmount now what nobody uses, and remove what was left behind."""

import argparse
import os
from typing import Any

from fimctl.daemon import Daemon
from fimctl.environment import data_of


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prune",
        help="unmount the layers that nobody uses, remove what crashes left",
        description="Unmount now the layers that nobody uses, instead of after the linger, and "
        "remove what crashes, and FlatImage without fimd, have left in the runtime tree, and the "
        "unpacked layers that nobody uses.",
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        help="try again to remove what had to stay in this image's data directory, too",
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Say how many layers and directories there were."""
    with Daemon() as daemon:
        options = {} if arguments.image is None else {"data": ("ay", _data(arguments.image))}
        layers, leftovers = daemon.manager("Prune", "a{sv}", (options,))
    print(f"{layers} idle layer{'' if layers == 1 else 's'} unmounted")
    if leftovers:
        directories = "directory" if leftovers == 1 else "directories"
        print(f"{leftovers} {directories} removed that nobody uses")
    return 0


def _data(image: str) -> bytes:
    return os.fsencode(data_of(image))
