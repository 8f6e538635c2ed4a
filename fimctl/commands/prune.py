"""`fimctl prune`: unmount now what nobody uses."""

import argparse
from typing import Any

from fimctl.daemon import Daemon


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prune",
        help="unmount the layers that nobody uses",
        description="Unmount now the layers that nobody uses, instead of after the linger.",
    )
    parser.set_defaults(func=run)


def run(_arguments: argparse.Namespace) -> int:
    """Say how many layers there were."""
    with Daemon() as daemon:
        [layers] = daemon.manager("Prune", "a{sv}", ({},))
    print(f"{layers} idle layer{'' if layers == 1 else 's'} unmounted")
    return 0
