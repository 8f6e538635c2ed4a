"""Layers, uppers and data directories for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fimd.dwarfs.write import create
from fimd.image.create import create_image
from fimd.layers.place import LayerPlace
from tests.layers.support import Fill, MakeLayer
from tests.support.tmpfs import tmpfs


@pytest.fixture
def make_layer(tmp_path: Path) -> MakeLayer:
    """Pack what a function puts into an empty directory."""
    made = iter(range(1000))

    def make(fill: Fill) -> LayerPlace:
        number = next(made)
        source = tmp_path / f"source-{number}"
        source.mkdir()
        fill(source)
        output = tmp_path / f"{number}.layer"
        create(source, output, level=1, subsecond=True)
        return LayerPlace(str(output), 0, output.stat().st_size)

    return make


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
