"""Which names of hidden directories would show in those that are there again."""

import os
from pathlib import Path

from fimd.layers.place import LayerPlace
from fimd.trees.ghosts import ghosts
from fimd.trees.hidden import hidden_directories
from tests.support.layers import MakeLayer, directories, sources, whiteout


def file(top: Path) -> None:
    (top / "a").touch()


def found_in(upper: Path, *layers: LayerPlace) -> dict[int, set[bytes]]:
    """The ghosts over an upper directory."""
    descriptor = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return ghosts(layers, hidden_directories(sources(*layers)), descriptor)
    finally:
        os.close(descriptor)


def test_a_directory_made_again_has_the_names_of_a_hidden_one_for_ghosts(
    make_layer: MakeLayer, tmp_path: Path
) -> None:
    base = make_layer(directories("a/x", "a/sub/y", "b/z"))
    above = make_layer(lambda top: whiteout(top / "a"))
    directories("a/sub")(tmp_path / "upper")
    found = found_in(tmp_path / "upper", base, above)
    assert found == {1: {b"a/x", b"a/sub/y"}}


def test_a_directory_made_again_in_a_layer_has_ghosts_too(
    make_layer: MakeLayer, tmp_path: Path
) -> None:
    fills = directories("a/x"), file, directories("a/between"), file, directories("a")
    found = found_in(tmp_path, *map(make_layer, fills))
    assert found == {3: {b"a/x", b"a/between"}}


def test_what_is_hidden_and_not_there_again_has_no_ghosts(
    make_layer: MakeLayer, tmp_path: Path
) -> None:
    layers = make_layer(directories("a/x")), make_layer(file)
    upper = tmp_path / "upper"
    directories("a/x")(tmp_path / "elsewhere")
    upper.mkdir()
    assert found_in(upper, *layers) == {}
    (upper / "a").symlink_to(tmp_path / "elsewhere" / "a")
    assert found_in(upper, *layers) == {}
