"""Images and data directories for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fimd.dwarfs.write import create
from fimd.flatimage.create import create_image
from tests.support.layers import make_layer
from tests.support.tmpfs import tmpfs

__all__ = ["make_layer"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data directory."""
    directory = tmp_path / "data"
    for name in ("root", "work", "layers", "tmp", "casefold"):
        (directory / name).mkdir(parents=True)
    return directory


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with one small layer."""
    base = tmp_path / "base"
    (base / "dir").mkdir(parents=True)
    (base / "dir" / "old").write_text("old")
    create(base, tmp_path / "base.layer", level=1)
    create_image(tmp_path / "app.flatimage", [tmp_path / "base.layer"])
    return tmp_path / "app.flatimage"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB."""
    with tmpfs(tmp_path / "small", "1m") as disk:
        yield disk
