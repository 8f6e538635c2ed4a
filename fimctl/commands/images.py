"""`fimctl images`: the images that were run or opened since the daemon started."""

import argparse
from typing import Any

from fimctl.daemon import Daemon
from fimctl.table import path_text, print_json, print_table, size_text


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("images", help="list the images that the daemon knows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the images by their path."""
    with Daemon() as daemon:
        objects = daemon.objects()
    images = sorted(
        (facts["Image"] for facts in objects.values() if "Image" in facts),
        key=lambda image: bytes(image["Path"]),
    )
    if arguments.json:
        print_json(images)
        return 0
    print_table(
        ("INSTANCES", "LAYERS", "SIZE", "OVERLAY", "CASEFOLD", "IMAGE"),
        [
            (
                str(len(image["Instances"])),
                str(len(image["Layers"])),
                size_text(sum(size for _, _, size in image["Layers"])),
                image["Overlay"],
                image["Casefold"],
                path_text(bytes(image["Path"])),
            )
            for image in images
        ],
    )
    return 0
