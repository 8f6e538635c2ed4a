"""`fimctl version`, and `fim-version` of an image: what it is run by."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fimctl.errors import WordsError
from fimctl.words import operation, refuse_trailing
from fimd.base import build

_SECONDS: Final = 5.0
_LICENSES: Final = "https://spdx.org/licenses"


@dataclass(frozen=True)
class Tool:
    """A program of others that the project stands on: where it comes from, how it may be used."""

    source: str
    license: str
    """An identifier of SPDX."""
    version: tuple[str, ...] = ("--version",)


_TOOLS: Final[Mapping[str, Tool]] = {
    "bash-static": Tool("https://www.gnu.org/software/bash/", "GPL-3.0-or-later"),
    "busybox": Tool("https://busybox.net", "GPL-2.0-only", ("--help",)),
    "bwrap": Tool("https://github.com/containers/bubblewrap", "LGPL-2.0-or-later"),
    "ciopfs": Tool("https://www.brain-dump.org/projects/ciopfs/", "GPL-2.0-only"),
    "dwarfs": Tool("https://github.com/mhx/dwarfs", "GPL-3.0-only"),
    "fuse-overlayfs": Tool("https://github.com/containers/fuse-overlayfs", "GPL-2.0-or-later"),
    "fusermount3": Tool("https://github.com/libfuse/libfuse", "GPL-2.0-only"),
    "mkdwarfs": Tool("https://github.com/mhx/dwarfs", "GPL-3.0-only"),
    "nsenter": Tool("https://github.com/util-linux/util-linux", "GPL-2.0-or-later"),
    "unionfs": Tool("https://github.com/rpodgorny/unionfs-fuse", "BSD-3-Clause"),
}


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "version",
        help="print what images are run by",
        description="short: the version; full: the build's facts, as JSON; deps: the programs of "
        "others that are in use, as JSON.",
    )
    parser.add_argument("what", nargs="?", choices=tuple(_SHOW), default="short")
    parser.set_defaults(func=lambda given: _SHOW[given.what]())


def image_command(_image: str, words: list[str]) -> int:
    """Do `fim-version short | full | deps`."""
    verb, rest = operation(words, "Missing op for 'fim-version' (<short|full|deps>)")
    if verb not in _SHOW:
        raise WordsError("Invalid version operation")
    refuse_trailing("fim-version", rest)
    return _SHOW[verb]()


def _short() -> int:
    print(build.VERSION)
    return 0


def _full() -> int:
    facts = {
        "COMMIT": build.COMMIT,
        "DISTRIBUTION": build.DISTRIBUTION,
        "TIMESTAMP": build.timestamp(),
        "VERSION": build.VERSION,
    }
    print(json.dumps(facts, indent=2))
    return 0


def _tools() -> int:
    found = {name: shutil.which(name) for name in _TOOLS}
    facts = {name: _facts(_TOOLS[name], path) for name, path in found.items() if path is not None}
    print(json.dumps(facts, indent=2))
    return 0


def _facts(tool: Tool, path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "version": _version([path, *tool.version]),
        "source": tool.source,
        "sha": digest,
        "licenses": [{"type": tool.license, "url": f"{_LICENSES}/{tool.license}.html"}],
    }


def _version(command: list[str]) -> str:
    """Return the first thing like a version that a program says of itself."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    match = re.search(rb"\d+(\.\d+)+\S*", done.stdout)
    return match[0].decode(errors="replace").rstrip(",;:)") if match else "unknown"


_SHOW: Final[Mapping[str, Callable[[], int]]] = {"short": _short, "full": _full, "deps": _tools}
