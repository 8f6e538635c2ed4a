"""`fimctl status`: the daemon in a few lines."""

import argparse
from typing import Any

from fimctl.daemon import Daemon
from fimctl.table import Style, print_json
from fimd.base.texts import printable


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help="tell how the daemon is")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print version, engines, settings and counts; failed layers too; and how it was reached."""
    with Daemon() as daemon:
        way = f"the session bus ({daemon.bus})" if daemon.bus else "fimd's own socket"
        facts = daemon.properties("Manager")
        objects = daemon.objects()
    layers = [item["Layer"] for item in objects.values() if "Layer" in item]
    counts = {
        "instances": sum("Instance" in item for item in objects.values()),
        "images": sum("Image" in item for item in objects.values()),
        "layers": len(layers),
        "idle layers": sum(layer["State"] == "idle" for layer in layers),
        "failed layers": sum(layer["State"] == "failed" for layer in layers),
    }
    settings = {name: value[1] for name, value in facts["Settings"].items()}
    if arguments.json:
        print_json(
            {
                "version": facts["Version"],
                "engines": facts["Engines"],
                "settings": settings,
                "counts": counts,
                "reached": way,
            }
        )
        return 0
    shown = {
        name: count for name, count in counts.items() if count or not name.startswith("failed")
    }
    about = {"reached by": way, **shown}
    groups = {f"fimd {facts['Version']}": about, "engines": facts["Engines"], "settings": settings}
    width = max(len(name) for group in groups.values() for name in group)
    style = Style()
    for heading, group in groups.items():
        print(style.strong(heading))
        for name, value in group.items():
            print(f"  {name:{width}}  {printable(str(value))}")
    return 0
