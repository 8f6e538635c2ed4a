"""Layers, uppers and data directories for the tests of this folder."""

from pathlib import Path

import pytest

from fimd.dwarfs.write import create
from fimd.layers.place import LayerPlace
from tests.layers.support import Fill, MakeLayer


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
