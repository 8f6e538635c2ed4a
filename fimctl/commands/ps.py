"""`fimctl ps`: the running instances."""

import argparse
import os
import time
from typing import Any

from fimctl.daemon import Daemon
from fimctl.table import path_text, print_json, print_table, time_text
from fimd.base.texts import printable


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("ps", help="list the running instances")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the instances by the time of their start."""
    with Daemon() as daemon:
        objects = daemon.objects()
    instances = sorted(
        (facts["Instance"] for facts in objects.values() if "Instance" in facts),
        key=lambda instance: instance["StartedAt"],
    )
    if arguments.json:
        print_json(instances)
        return 0
    now = time.time()
    print_table(
        ("PID", "IMAGE", "STATE", "AGE", "OVERLAY", "COMMAND"),
        [
            (
                str(instance["Pid"]),
                path_text(os.path.basename(bytes(instance["ImagePath"]))),
                instance["State"],
                time_text(now - instance["StartedAt"] / 1e6),
                overlay_text(instance),
                command_text(instance),
            )
            for instance in instances
        ],
    )
    return 0


def overlay_text(instance: dict[str, Any]) -> str:
    """Return the overlay, and the view over it where there is one."""
    folded: str = instance["Casefold"]
    return f"{instance['Overlay']}{'' if folded == 'off' else ' + casefold'}"


def command_text(instance: dict[str, Any]) -> str:
    """Return what the user asked for, in at most 60 characters."""
    words = [printable(os.fsdecode(bytes(word))) for word in instance["Command"]]
    if instance["Mode"] == "boot":
        words.insert(0, "(boot)")
    text = " ".join(words)
    return text if len(text) <= 60 else text[:59] + "…"
