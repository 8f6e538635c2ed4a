"""Layers as one tree: what a hostile one can't do."""

import pytest

from fimd.dwarfs import reader
from fimd.dwarfs.errors import DamagedError
from fimd.trees import merged
from fimd.trees.merged import Merged, open_layers
from tests.support.layers import MakeLayer, directories


def test_directories_that_lead_back_to_each_other_are_damage(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_layers([make_layer(directories("a/b")), make_layer(directories("c"))]) as images:
        entries = images[0].tree.readdir
        monkeypatch.setattr(images[0].tree, "readdir", lambda _inode: entries(0))
        lookup = images[0].tree.lookup
        monkeypatch.setattr(images[0].tree, "lookup", lambda _inode, name: lookup(0, name))
        with pytest.raises(DamagedError, match="directories share their entries"):
            list(Merged(images).walk())


def test_directories_that_are_nested_beyond_measure_are_damage(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reader, merged):
        monkeypatch.setattr(module, "LONGEST_PATH", 8)
    with open_layers([make_layer(directories("a/b/c/d"))]) as images:
        assert [path for path, _ in Merged(images).walk()][-1] == b"a/b/c/d"
    with open_layers([make_layer(directories("a/b/c/d/e"))]) as images:
        with pytest.raises(DamagedError, match="a path has more than 8 bytes"):
            list(Merged(images).walk())
        with pytest.raises(DamagedError, match="a path has more than 8 bytes"):
            list(images[0].walk())
