"""A walk through layers whose metadata may lie."""

from pathlib import Path

import pytest

from fimd.dwarfs.errors import DamagedError
from fimd.trees.merged import join, open_layers
from fimd.trees.walk import Walk
from tests.support.layers import MakeLayer, directories


def names(walk: Walk) -> dict[bytes, list[tuple[int, set[bytes]]]]:
    """Walk through all directories that any of the layers has."""
    found = {}
    for path, listings in walk:
        found[path] = [(listing.number, set(listing.names)) for listing in listings]
        for name in {name for listing in listings for name in listing.names}:
            walk.enter(join(path, name), [listing.directory(name) for listing in listings])
    return found


def test_each_directory_comes_with_what_each_layer_has_in_it(make_layer: MakeLayer) -> None:
    def fill(top: Path) -> None:
        (top / "both").mkdir()
        (top / "both" / "file").touch()
        (top / "other").touch()

    with open_layers([make_layer(directories("both/x", "other")), make_layer(fill)]) as images:
        walk = Walk(images)
        walk.enter(b"", [(1, images[1].root), (0, images[0].root)])
        assert names(walk) == {
            b"": [(1, {b"both", b"other"}), (0, {b"both", b"other"})],
            b"both": [(1, {b"file"}), (0, {b"x"})],
            b"both/file": [],
            b"both/x": [(0, set())],
            b"other": [(0, set())],
        }


def test_a_directory_that_leads_back_to_itself_is_damage_of_the_layer_that_has_it(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [make_layer(directories("a/b")), make_layer(directories("a/b/c/d/e/f"))]
    with open_layers(places) as images:
        entries = images[0].tree.readdir
        monkeypatch.setattr(images[0].tree, "readdir", lambda _inode: entries(0))
        walk = Walk(images)
        walk.enter(b"", [(number, image.root) for number, image in enumerate(images)])
        with pytest.raises(DamagedError, match=r"0\.layer.*directories share their entries"):
            names(walk)
