"""`fimctl stop`: end a running instance."""

import argparse
from typing import Any

from fimctl.daemon import BUS_NAME, Daemon
from fimctl.errors import ClientError


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("stop", help="end running instances")
    parser.add_argument("pid", metavar="PID", type=int, nargs="+", help="as fimctl ps lists it")
    parser.add_argument(
        "--timeout",
        type=int,
        default=10,
        metavar="SECONDS",
        help="how long the program may take before it is killed (10)",
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask each program to end; kill what doesn't."""
    with Daemon() as daemon:
        known = {
            facts["Instance"]["Pid"]: path
            for path, facts in daemon.objects().items()
            if "Instance" in facts
        }
        for pid in arguments.pid:
            if pid not in known:
                raise ClientError(f"no instance is keyed by process {pid}: see 'fimctl ps'")
            options = {"timeout": ("u", max(arguments.timeout, 0))}
            daemon.call(
                f"{BUS_NAME}.Instance",
                "Stop",
                "a{sv}",
                (options,),
                path=known[pid],
                seconds=arguments.timeout + 30,
            )
    return 0
