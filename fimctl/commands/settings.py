"""`fimctl settings`: what is set, and where."""

import argparse
import shutil
import textwrap
from dataclasses import fields
from typing import Any

from fimctl.daemon import Daemon
from fimctl.errors import ClientError
from fimctl.table import Style, print_json, print_table
from fimd.base.errors import InvalidArgumentError
from fimd.base.settings import DEFAULT_ORIGIN, Settings, read, settings_file


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "settings",
        help="show the daemon's settings and where they come from",
        description="Show the settings in force, and whether each is the default, from the "
        "settings file, or from a variable of the daemon. A wrong setting in the file is refused "
        "by name.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the daemon's settings, and check the file for the next start."""
    try:
        written = read({"HOME": "/"}, settings_file())
    except InvalidArgumentError as error:
        raise ClientError(str(error)) from error
    with Daemon() as daemon:
        facts = daemon.properties("Manager")
    values = {name: value[1] for name, value in facts["Settings"].items()}
    origins = facts["SettingsOrigins"]
    if arguments.json:
        print_json({name: {"value": values[name], "origin": origins[name]} for name in values})
        return 0
    about = {item.name: item.metadata["about"] for item in fields(Settings)}
    rows = [
        [name, f"{value:g}" if isinstance(value, float) else str(value), origins[name]]
        for name, value in values.items()
    ]
    print_table(["SETTING", "VALUE", "ORIGIN"], rows)
    style = Style()
    print()
    width = shutil.get_terminal_size().columns
    for name in values:
        for number, line in enumerate(textwrap.wrap(f"{name}: {about.get(name, '')}", width)):
            print(style.faint(line) if number else line.replace(name, style.strong(name), 1))
    print(f"\nThe file is {settings_file()}.\nA variable FIMD_NAME of the daemon comes before it.")
    for name, (value, origin) in written.items():
        by_variable = origins[name].startswith("FIMD_")
        if origin != DEFAULT_ORIGIN and value != values[name] and not by_variable:
            print(f"{name} = {value} in the file waits until fimd reloads, or starts again")
    return 0
