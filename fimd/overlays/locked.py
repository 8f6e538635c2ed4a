"""What a program needs besides its branches when a stack's directory is its root directory."""

import os
import re
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.base.system_calls import MS_BIND, mount
from fimd.mounts.template import OWN_FILES

_READS: Final = (
    "/dev/fuse",
    "/proc/sys/kernel/overflowuid",
    "/proc/sys/kernel/overflowgid",
)
"""Files that such programs open when they start."""
_PT_INTERP: Final = 3
_LIBRARY: Final = re.compile(rb"(/\S+) \(0x")
_SECONDS: Final = 10.0
"""Seconds that looking for libraries may take."""


def furnish(directory: str, needed: Sequence[str]) -> None:
    """Mount what a program is made of, and what it opens, below a directory. Raises OSError."""
    for path in (*needed, *_READS):
        target = directory + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mount(path, target, "", MS_BIND, "")
    os.makedirs(directory + OWN_FILES, exist_ok=True)


@lru_cache
def needs(program: str) -> tuple[str, ...]:
    """Return the files that a program is made of: itself, what loads it, and its libraries.

    Raises UnsupportedError.
    """
    loader = _loader(program)
    if loader is None:
        return (program,)
    try:
        said = subprocess.run(
            [loader, "--list", program], capture_output=True, timeout=_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UnsupportedError(f"the libraries of {program} can't be found: {error}") from error
    found = (os.fsdecode(path) for path in _LIBRARY.findall(said))
    return tuple(dict.fromkeys((program, loader, *found)))


def _loader(program: str) -> str | None:
    """Return what loads a program and its libraries; None where it needs none (elf(5))."""
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            raise UnsupportedError(f"{program} is no program of this machine's")
        start, size, count = (
            int.from_bytes(header[at : at + width], "little")
            for at, width in ((32, 8), (54, 2), (56, 2))
        )
        for number in range(count):
            file.seek(start + size * number)
            entry = file.read(size)
            if int.from_bytes(entry[:4], "little") == _PT_INTERP:
                file.seek(int.from_bytes(entry[8:16], "little"))
                return os.fsdecode(file.read(int.from_bytes(entry[32:40], "little")).rstrip(b"\0"))
    return None
