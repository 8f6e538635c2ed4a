"""`fimctl prune`: unmount now what nobody uses, and remove what was left behind."""

import argparse
from typing import Any

from fimctl.daemon import Daemon


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prune",
        help="unmount the layers that nobody uses, remove what crashes left",
        description="Unmount now the layers that nobody uses, instead of after the linger, and "
        "remove what crashes, and FlatImage without fimd, have left in the runtime tree.",
    )
    parser.set_defaults(func=run)


def run(_arguments: argparse.Namespace) -> int:
    """Say how many layers and directories there were."""
    with Daemon() as daemon:
        layers, leftovers = daemon.manager("Prune", "a{sv}", ({},))
    print(f"{layers} idle layer{'' if layers == 1 else 's'} unmounted")
    if leftovers:
        directories = "directory" if leftovers == 1 else "directories"
        print(f"{leftovers} {directories} removed that a crash had left")
    return 0
