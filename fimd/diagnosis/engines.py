"""The programs and libraries that do the work, and their versions."""

import asyncio
import re
import shutil
import sys
from importlib import metadata
from typing import Final

from fimd.base.errors import FimError
from fimd.diagnosis.finding import Finding, fine, note, problem
from fimd.mounts.process import run

_PROGRAMS: Final = {
    "dwarfs": ("--help", "the embedded DwarFS mounts layers; install dwarfs for more speed"),
    "mkdwarfs": ("--help", "the embedded writer makes layers; nothing has to be done"),
    "ciopfs": ("--help", "the embedded case-insensitive view is used; nothing has to be done"),
}
_LIBRARIES: Final = (*("pyfuse3", "dbus-next", "structlog", "zstandard", "lz4", "xxhash", "numpy"),)
_SECONDS: Final = 5.0


async def check() -> list[Finding]:
    """Ask each program for its version, and look up the libraries'."""
    programs = await asyncio.gather(*(_program(name) for name in _PROGRAMS))
    return [fine("python", sys.version.split()[0]), *programs, _libraries(), _brotli()]


async def _program(name: str) -> Finding:
    option, otherwise = _PROGRAMS[name]
    path = shutil.which(name)
    if path is None:
        return note(name, "not installed", otherwise)
    try:
        # programs of this kind print their help with a failing status, so that is no news
        said = await run(["sh", "-c", '"$0" "$1" 2>&1 || :', path, option], seconds=_SECONDS)
    except FimError as error:
        return problem(name, str(error), f"repair or remove {path}")
    version = re.search(r"v?\d+\.\d+(\.\d+)?", said.decode(errors="replace"))
    return fine(name, f"{path}, version {version[0] if version else 'unknown'}")


def _libraries() -> Finding:
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return problem("libraries", f"missing: {', '.join(missing)}", "install the package anew")
    return fine("libraries", ", ".join(found))


def _brotli() -> Finding:
    try:
        return fine("brotli", metadata.version("brotli"))
    except metadata.PackageNotFoundError:
        remedy = "install brotli, if you have images with it"
        return note("brotli", "not installed: layers packed with it can't be read", remedy)
