"""`fimctl setup`: let the session bus start the daemon of this installation."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from fimctl.daemon import BUS_NAME
from fimctl.errors import ClientError

_SERVICE: Final = "[D-BUS Service]\nName={name}\nExec={command}\n"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "setup",
        help="install this user's D-Bus activation file",
        description="Write the file by which the session bus starts fimd when it is needed.",
    )
    parser.set_defaults(func=run)


def run(_arguments: argparse.Namespace) -> int:
    """Write the activation file below XDG_DATA_HOME."""
    command = Path(sys.executable).parent / "fimd"
    if not os.access(command, os.X_OK):
        raise ClientError(f"{command} is not there: install the package fimd into this environment")
    home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.environ["HOME"], ".local", "share")
    target = Path(home) / "dbus-1" / "services" / f"{BUS_NAME}.service"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_SERVICE.format(name=BUS_NAME, command=command))
    except OSError as error:
        raise ClientError(f"{target} can't be written: {error.strerror}") from error
    print(f"wrote {target}")
    return 0
