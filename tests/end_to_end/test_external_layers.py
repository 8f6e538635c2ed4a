"""Layers of FIM_LAYERS and of the managed directory, in the specified order."""

import os
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MakeLayer
from tests.support.overlays import INSTALLED
from tests.support.session import Session


def seen(session: Session, image: Path, path: str, layers: str) -> str:
    """What a file reads with some FIM_LAYERS."""
    return session.output(image, "fim-exec", "cat", path, variables={"FIM_LAYERS": layers}).strip()


def test_files_directories_and_mixtures_stack_in_the_given_order(
    session: Session, image: Path, make_layer: MakeLayer
) -> None:
    base_b = make_layer("dir/b.layer", {"who": "b", "only-b": "1"})
    base_a = make_layer("dir/a.layer", {"who": "a", "only-a": "1"})
    single = make_layer("single.dwarfs", {"who": "single"})
    other = make_layer("other/x", {"who": "other"})
    directory = base_a.parent

    assert seen(session, image, "/who", f"{base_a}:{base_b}") == "b"
    assert seen(session, image, "/who", f"{base_b}:{base_a}") == "a"
    assert seen(session, image, "/who", str(directory)) == "b"  # by name: a below b
    assert seen(session, image, "/who", f"{directory}:{single}:{other.parent}") == "other"
    assert seen(session, image, "/who", f"{directory}:{other.parent}:{single}") == "single"
    assert seen(session, image, "/who", f"{single}:{directory}") == "b"
    assert seen(session, image, "/only-a", f"{directory}:{single}") == "1"
    session.wait_until_clean()


def test_layers_of_the_managed_directory_lie_above_fim_layers(
    session: Session, image: Path, make_layer: MakeLayer
) -> None:
    low = make_layer("low.layer", {"who": "FIM_LAYERS"})
    managed = make_layer(".app.flatimage.data/layers/layer-000.layer", {"who": "managed"})
    os.chown(managed.parent.parent, session.account.uid, session.account.gid)
    os.chown(managed.parent, session.account.uid, session.account.gid)
    assert seen(session, image, "/who", str(low)) == "managed"
    managed.unlink()
    assert seen(session, image, "/who", str(low)) == "FIM_LAYERS"


def test_what_is_no_layer_is_skipped_with_a_warning_that_names_it(
    session: Session, image: Path, make_layer: MakeLayer
) -> None:
    good = make_layer("good.layer", {"who": "good"})
    bad = session.directory / "work" / "bad.layer"
    bad.write_bytes(b"no layer at all")
    missing = bad.with_name("missing.layer")
    closed = bad.with_name("closed")
    closed.mkdir(mode=0o700)
    done = session.run(
        image,
        "fim-exec",
        "cat",
        "/who",
        variables={"FIM_LAYERS": f"{bad}:{closed}/x:{good}:{missing}:/dev/null"},
    )
    assert done.returncode == 0
    assert done.stdout == "good"
    assert f"Skipping invalid dwarfs filesystem '{bad}': offset 0: " in done.stderr
    for skipped in (missing, closed / "x", "/dev/null"):
        assert f"Skipping '{skipped}'" in done.stderr
    assert done.stderr.count("\n") == 4


@pytest.mark.parametrize("overlay", INSTALLED)
def test_what_layers_spell_differently_is_told_where_names_are_found_in_any_case(
    session: Session, image: Path, make_layer: MakeLayer, overlay: str
) -> None:
    game = make_layer("game.layer", {"game/Data/a": "1", "game/Same/x": "1"})
    mod = make_layer("mod.layer", {"game/data/b": "2", "game/Same/y": "2"})
    variables = {"FIM_LAYERS": f"{game}:{mod}", "FIM_OVERLAY": overlay}
    assert session.output(image, "fim-exec", "true", variables=variables) == ""
    variables["FIM_CASEFOLD"] = "1"
    done = session.run(image, "fim-exec", "true", variables=variables)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "W::" in done.stderr
    assert "/game/Data and /game/data of the layers differ only in case" in done.stderr


def test_an_unpacked_tree_is_told_to_be_made_a_layer(session: Session, image: Path) -> None:
    tree = session.directory / "work" / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "readme").write_text("no layer")
    done = session.run(image, "fim-exec", "true", variables={"FIM_LAYERS": str(tree)})
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.count(str(tree)) == 2
    assert f"make a layer of it (fim-layer create '{tree}' FILE)" in done.stderr


@pytest.mark.parametrize("overlay", INSTALLED)
def test_twelve_layers_stack_by_number_and_not_by_text(
    session: Session, image: Path, make_layer: MakeLayer, overlay: str
) -> None:
    layers = [make_layer(f"n{number}", {"who": str(number)}) for number in range(1, 13)]
    session.output(image, "fim-overlay", "set", overlay)
    assert seen(session, image, "/who", ":".join(map(str, layers[:10]))) == "10"
    all_of_them = {"FIM_LAYERS": ":".join(map(str, layers))}
    program = session.background(image, "cat /who; sleep 60", variables=all_of_them)
    assert program.stdout is not None
    assert program.stdout.read(2) == b"12"
    assert [layer["References"] for layer in session.objects("layers")] == [1] * 13
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_a_layer_replaced_at_the_same_path_is_another_layer(
    session: Session, image: Path, make_layer: MakeLayer
) -> None:
    path = make_layer("same.layer", {"who": "first"})
    assert seen(session, image, "/who", str(path)) == "first"
    new = make_layer("new.layer", {"who": "other"})
    path.write_bytes(new.read_bytes())  # in place: the same inode
    assert seen(session, image, "/who", str(path)) == "other"
    new.replace(path)
    assert seen(session, image, "/who", str(path)) == "other"


def test_other_layers_over_a_data_directory_in_use_are_refused_with_its_users(
    session: Session, image: Path, make_layer: MakeLayer
) -> None:
    extra = make_layer("extra.layer", {"who": "extra"})
    program = session.background(image, "sleep 60")
    done = session.run(image, "fim-exec", "true", variables={"FIM_LAYERS": str(extra)})
    assert done.returncode == 125
    assert f"in use with other layers by process {program.pid}" in done.stderr
    done = session.run(image, "fim-exec", "true", variables={"FIM_OVERLAY": "overlayfs"})
    assert done.returncode == 125
    assert "the overlay bwrap (not overlayfs)" in done.stderr
    elsewhere = {"FIM_LAYERS": str(extra), "FIM_DIR_DATA": "elsewhere"}
    assert session.output(image, "fim-exec", "cat", "/who", variables=elsewhere) == "extra"


@pytest.mark.parametrize("overlay", INSTALLED)
def test_a_layers_file_may_be_moved_while_it_is_mounted(
    session: Session, image: Path, make_layer: MakeLayer, overlay: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    layer = make_layer("one", {"who": "one"})
    variables = {"FIM_LAYERS": str(layer), "FIM_DIR_DATA": f"{session.directory}/work/first"}
    session.background(image, "sleep 60", variables=variables)
    moved = layer.rename(layer.with_name("moved"))
    assert seen(session, image, "/who", str(moved)) == "one"
    sources = {one["Source"] for one in session.objects("layers")}
    assert sources == {str(image), str(moved)}
