"""A filesystem of a test's own, which can be full or read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(point: Path, size: str) -> Iterator[Path]:
    """Mount one at a new directory, with a size such as 16m; skip the test where that can't be."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a filesystem")
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "small", str(point)]
    if subprocess.run(mount, check=False, timeout=60, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True, timeout=60)
        point.rmdir()
