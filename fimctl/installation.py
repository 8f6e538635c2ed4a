"""The files that an installation brings along: units, activation files, launchers."""

import os
import sys
from pathlib import Path
from typing import Final

from fimctl.errors import ClientError
from fimd.base.places import find_global

_PLACES: Final = (
    Path(__file__).resolve().parents[1],  # a checkout
    Path(sys.prefix) / "share" / "fimd",
    Path("/usr/share/fimd"),
)


def programs() -> Path:
    """Return the directory of this installation's programs. Raises ClientError without fimd."""
    here = Path(sys.argv[0]).absolute()
    for directory in (here.parent, here.resolve().parent, Path(sys.executable).parent):
        if os.access(directory / "fimd", os.X_OK):
            return directory
    raise ClientError(f"{here.parent}/fimd is not there: install the package fimd there first")


def filled(name: str) -> str:
    """Return a file's text, with this installation's programs and the runtime trees' place in it.

    Raises ClientError where the file, or the daemon's program, is missing.
    """
    for place in _PLACES:
        path = place / name
        if path.is_file():
            text = path.read_text().replace("@BINDIR@", str(programs()))
            return text.replace("@GLOBAL@", find_global().replace("%", "%%"))
    raise ClientError(f"{name} is not part of this installation: install the package fimd anew")
