"""`fimctl shutdown`: the daemon leaves."""

import argparse
from typing import Any

from fimctl.daemon import BUS_NAME, Daemon


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "shutdown",
        help="let the daemon leave",
        description="Let the daemon leave. Running programs go on; the next daemon, which the "
        "next command starts, takes them over.",
    )
    parser.add_argument("--kill", action="store_true", help="end running programs first")
    parser.add_argument(
        "--timeout",
        type=int,
        default=10,
        metavar="SECONDS",
        help="how long programs may take before they are killed (10)",
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Tell the daemon to leave."""
    options = {
        "kill": ("b", arguments.kill),
        "timeout": ("u", max(arguments.timeout, 0)),
    }
    with Daemon() as daemon:
        daemon.call(
            f"{BUS_NAME}.Manager",
            "Shutdown",
            "a{sv}",
            (options,),
            seconds=arguments.timeout + 60,
        )
    return 0
