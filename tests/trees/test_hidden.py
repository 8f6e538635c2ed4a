"""Which directories of lower layers mean nothing any more, since a layer hides them."""

from pathlib import Path

import pytest

from fimd.base.errors import BadLayerError
from fimd.dwarfs.tree import Tree
from fimd.trees.hidden import hidden_directories
from tests.support.layers import MakeLayer, directories, sources, whiteout


def test_a_file_or_a_deletion_hides_the_directories_that_lower_layers_have_of_its_name(
    make_layer: MakeLayer,
) -> None:
    def files(top: Path) -> None:
        (top / "a").touch()
        (top / "b").mkdir()
        (top / "b" / "c").symlink_to("d")
        whiteout(top / "gone")
        (top / "own").touch()

    base = make_layer(directories("a/old", "b/c/old", "gone/old", "kept/own"))
    between = make_layer(directories("b", "kept/sub"))
    above = make_layer(files)
    top = make_layer(directories("a", "b/c", "kept/own", "own"))
    nothing: frozenset[bytes] = frozenset()
    assert hidden_directories(sources(base, between, above, top)) == (
        *(nothing, nothing),
        *(frozenset({b"a", b"b/c", b"gone"}), nothing),
    )


def test_only_the_topmost_that_hides_a_directory_counts(make_layer: MakeLayer) -> None:
    def file(top: Path) -> None:
        (top / "a").touch()

    layers = [directories("a/1"), file, directories("a/2"), file, directories("a/3")]
    found = hidden_directories(sources(*map(make_layer, layers)))
    assert found == tuple(frozenset({b"a"} if number == 3 else ()) for number in range(5))


def test_a_directory_that_leads_back_to_itself_makes_a_bad_layer(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = sources(*(make_layer(directories("a/b")) for _ in range(2)))
    entries = Tree.readdir
    monkeypatch.setattr(Tree, "readdir", lambda tree, _inode: entries(tree, 0))
    with pytest.raises(BadLayerError, match="directories share their entries"):
        hidden_directories(layers)
