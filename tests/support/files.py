"""What tests do to files that takes more than a call of Python's library."""

import os
import subprocess
import sys
from pathlib import Path

from fimd.base.system_calls import rename


def rename_with(flags: int, source: Path, target: Path) -> None:
    """Rename with flags of renameat2(2)."""
    rename(os.fsencode(source), os.fsencode(target), -100, -100, flags)


def is_locked(path: Path, kind: str) -> bool:
    """Tell whether another process is refused an exclusive lock; `kind` is flock or lockf."""
    code = f"""
import fcntl, sys
file = open({str(path)!r}, "r+")
try:
    fcntl.{kind}(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(9)
"""
    status = subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode
    assert status in {0, 9}
    return status == 9


def make_deep(directory: Path, levels: int, name: str = "d") -> None:
    """Make that many directories in each other below `directory`, with a file in the lowest."""
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)
