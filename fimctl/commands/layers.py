"""`fimctl layers`: the mounted layers."""

import argparse
from typing import Any

from fimctl.daemon import Daemon
from fimctl.table import path_text, print_json, print_table, size_text


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("layers", help="list the mounted layers")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the layers by file and offset."""
    with Daemon() as daemon:
        objects = daemon.objects()
    layers = sorted(
        (
            {"Id": path.rpartition("/")[2], **facts["Layer"]}
            for path, facts in objects.items()
            if "Layer" in facts
        ),
        key=lambda layer: (bytes(layer["Source"]), layer["Offset"]),
    )
    if arguments.json:
        print_json(layers)
        return 0
    print_table(
        ("LAYER", "USERS", "STATE", "SIZE", "OFFSET", "ENGINE", "SOURCE"),
        [
            (
                layer["Id"],
                str(layer["References"]),
                layer["State"],
                size_text(layer["Size"]),
                str(layer["Offset"]),
                layer["Engine"],
                path_text(bytes(layer["Source"])),
            )
            for layer in layers
        ],
    )
    return 0
