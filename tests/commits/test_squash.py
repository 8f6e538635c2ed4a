"""Squashes, removals and exports of layers, and what a layer changes."""

import os
import shutil
from pathlib import Path

import pytest

from fimd.base.errors import FimError, InvalidArgumentError
from fimd.commits.chains import export, held_chain, remove_topmost, reset, squash
from fimd.commits.managed import finish_replacing
from fimd.commits.recovery import recover
from fimd.commits.work import Work
from fimd.flatimage.create import create_image
from fimd.layers.place import LayerPlace
from fimd.trees.diff import changes
from fimd.trees.entries import entry_of
from fimd.trees.merged import Merged, open_layers
from fimd.trees.order import check_visible
from tests.commits.commits import opened
from tests.support.layers import MakeLayer, chain, killed_at, shown, whiteout


def base(top: Path) -> None:
    for name in ("dir/a", "dir/b", "gone/x", "file", "turned/in"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(f"base {name}")


def second(top: Path) -> None:
    """Deletes a file, a directory, and what is a directory below."""
    (top / "dir").mkdir()
    whiteout(top / "dir" / "a")
    whiteout(top / "gone")
    whiteout(top / "file")
    (top / "turned").write_text("a file now")
    (top / "only").write_text("second")


def third(top: Path) -> None:
    """Brings some of it back, and deletes what the second one brought."""
    (top / "gone").mkdir()
    (top / "gone" / "new").write_text("third")
    (top / "dir").mkdir(mode=0o700)
    (top / "dir" / "c").write_text("third")
    os.link(top / "dir" / "c", top / "dir" / "d")
    (top / "file").mkdir()
    whiteout(top / "only")


LAYERS = (base, second, third)


@pytest.fixture
def managed(data: Path, make_layer: MakeLayer) -> list[LayerPlace]:
    """The three layers as managed ones."""
    places = []
    for number, fill in enumerate(LAYERS):
        made = make_layer(fill)
        path = data / "layers" / f"layer-{number:03}.layer"
        shutil.copy(made.path, path)
        places.append(LayerPlace(str(path), 0, made.size))
    return places


@pytest.fixture
def image(tmp_path: Path, make_layer: MakeLayer) -> Path:
    """An image with the three layers."""
    create_image(tmp_path / "app.flatimage", [Path(make_layer(fill).path) for fill in LAYERS])
    return tmp_path / "app.flatimage"


def squashed(
    image: Path, data: Path, below: list[LayerPlace], layers: list[LayerPlace]
) -> LayerPlace:
    """Squash layers, and return the new one."""
    with opened(data) as directory, held_chain(str(image), directory, layers) as held:
        return squash(held, below, layers, 1, Work())


def remove(image: Path, data: Path, layer: LayerPlace) -> None:
    """Remove the topmost layer."""
    with opened(data) as directory, held_chain(str(image), directory, [layer]) as held:
        remove_topmost(held, layer)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 2), (0, 2)])
def test_a_squash_in_the_image_changes_nothing_that_is_seen(
    first: int, last: int, data: Path, image: Path
) -> None:
    places = chain(image)
    before = shown(places)
    image.chmod(0o711)
    squashed(image, data, places[:first], places[first : last + 1])
    assert len(chain(image)) == 3 - (last - first)
    assert shown(chain(image)) == before
    assert image.stat().st_mode & 0o7777 == 0o711
    assert [path.name for path in image.parent.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 2), (0, 2)])
def test_a_squash_of_managed_layers_changes_nothing_that_is_seen(
    first: int, last: int, data: Path, managed: list[LayerPlace], tmp_path: Path
) -> None:
    before = shown(managed)
    made = squashed(tmp_path / "app", data, managed[:first], managed[first : last + 1])
    left = [*managed[:first], made, *managed[last + 1 :]]
    assert shown(left) == before
    names = sorted(path.name for path in (data / "layers").iterdir())
    assert names == [os.path.basename(place.path) for place in left]
    assert list((data / "tmp").iterdir()) == []


def test_a_squash_of_the_base_leaves_no_deletion(data: Path, image: Path) -> None:
    squashed(image, data, [], chain(image))
    with open_layers(chain(image)) as [layer]:
        assert all(facts.mode & 0o170000 != 0o020000 for _, facts in layer.walk())


def test_layers_of_different_places_are_not_squashed(
    data: Path, image: Path, managed: list[LayerPlace]
) -> None:
    for wrong in ([], managed[:1], [*chain(image), *managed]):
        with pytest.raises(InvalidArgumentError, match="two layers or more"):
            squashed(image, data, [], wrong)


@pytest.mark.parametrize("step", range(12))
def test_a_squash_of_managed_layers_that_is_killed_is_finished_or_never_was(
    step: int, data: Path, managed: list[LayerPlace], tmp_path: Path
) -> None:
    before = shown(managed)
    calls = [(os, name) for name in ("link", "replace", "unlink", "fsync")]
    killed_at(step, calls, lambda: squashed(tmp_path / "app", data, [], managed))
    with opened(data) as directory:
        recover(directory)
    files = sorted((data / "layers").iterdir())
    assert len(files) in {1, 3}
    assert shown([LayerPlace(str(file), 0, file.stat().st_size) for file in files]) == before
    assert list((data / "tmp").iterdir()) == []


def test_a_record_of_a_squash_that_makes_no_sense_is_only_removed(
    data: Path, managed: list[LayerPlace]
) -> None:
    for number, text in enumerate(("", "[]", '{"inode": 1, "into": "../../x", "remove": ["a"]}')):
        (data / "tmp" / f"fimd-squash-{number}").write_text(text)
    with opened(data) as directory:
        assert finish_replacing(directory) == 0
    assert list((data / "tmp").iterdir()) == []
    assert len(list((data / "layers").iterdir())) == 3


def test_the_topmost_layer_is_removed_from_the_image_and_from_the_managed_ones(
    data: Path, image: Path, managed: list[LayerPlace]
) -> None:
    remove(image, data, chain(image)[-1])
    assert len(chain(image)) == 2
    remove(image, data, managed[-1])
    assert not Path(managed[-1].path).exists()
    with pytest.raises(InvalidArgumentError, match="neither"):
        remove(image, data, LayerPlace("/elsewhere", 0, 1))


def test_an_exported_layer_is_the_same_and_replaces_nothing(image: Path, tmp_path: Path) -> None:
    place = chain(image)[1]
    output = tmp_path / "exported"
    size = export(place, str(output), Work())
    assert shown([LayerPlace(str(output), 0, size)]) == shown([place])
    with pytest.raises(FimError, match="already exists"):
        export(place, str(output), Work())


def test_what_was_changed_can_be_thrown_away(data: Path) -> None:
    (data / "root" / "closed").mkdir(mode=0o000)
    (data / "root" / "x").write_text("x")
    with opened(data) as directory:
        reset(directory, Work())
    assert list((data / "root").iterdir()) == []
    assert list((data / "tmp").iterdir()) == []


def test_a_layer_tells_what_it_adds_changes_and_deletes(make_layer: MakeLayer) -> None:
    places = [make_layer(base), make_layer(second)]
    with open_layers(places) as [below, layer]:
        entries = [entry_of(path, layer, facts.inode) for path, facts in layer.walk()]
        found = {
            item.path: str(item.kind) for item in changes(entries, Merged([below])) if item.path
        }
    assert found == {
        b"dir/a": "deleted",
        b"gone": "deleted",
        b"file": "deleted",
        b"turned": "changed",
        b"only": "added",
    }


def test_a_layer_may_not_lie_below_one_that_hides_it(make_layer: MakeLayer) -> None:
    places = [make_layer(base), make_layer(second), make_layer(third)]
    with open_layers(places) as [low, middle, _]:
        entries = [entry_of(path, low, facts.inode) for path, facts in low.walk()]
        with pytest.raises(FimError, match="would lie below"):
            check_visible(entries, [middle])
        harmless = [entry for entry in entries if entry.path in {b"", b"dir", b"dir/b"}]
        check_visible(harmless, [middle])
