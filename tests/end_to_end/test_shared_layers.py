"""Layers that are mounted together: one process serves them, and each is counted for itself."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs import Image
from tests.end_to_end.conftest import MakeLayer
from tests.support.session import Session, wait_for

MakeLayers = Callable[..., list[Path]]


@pytest.fixture
def make_layers(make_layer: MakeLayer) -> MakeLayers:
    """Make layer files, each with one file of its name."""

    def make(*names: str) -> list[Path]:
        return [make_layer(f"{name}.layer", {name: name}) for name in names]

    return make


def with_layers(*layers: Path, data: str = "") -> dict[str, str]:
    """The variables of a start with these layers, and perhaps another data directory."""
    variables = {"FIM_LAYERS": ":".join(map(str, layers))}
    return variables | ({"FIM_DIR_DATA": data} if data else {})


def damage(layer: Path) -> None:
    """Change a byte of the tree that a layer holds: it can't be mounted."""
    with Image.open(layer) as image:
        [section] = (one for one in image.table.sections if one.name == "METADATA_V2")
    with layer.open("r+b") as file:
        file.seek(section.offset + section.size - 1)
        [last] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last ^ 1]))


def layers_of(session: Session) -> dict[str, Any]:
    """What the daemon says of each layer, by the name of its file."""
    return {Path(layer["Source"]).name: layer for layer in session.objects("layers")}


def test_one_process_serves_the_layers_of_a_start(
    session: Session, image: Path, make_layers: MakeLayers
) -> None:
    layers = make_layers("a", "b", "c")
    program = session.background(image, "sleep 60", variables=with_layers(*layers))
    assert len(session.named("layer-")) == 1
    found = layers_of(session)
    assert len(found) == len({layer["MountPoint"] for layer in found.values()}) == 4
    for name in ("a", "b", "c"):
        path = os.path.join(found[f"{name}.layer"]["MountPoint"], name)
        assert session.output("fimctl", "enter", "cat", path) == name
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_a_later_start_shares_them_and_mounts_only_what_is_missing(
    session: Session, image: Path, make_layers: MakeLayers
) -> None:
    a, b, c = make_layers("a", "b", "c")
    first = session.background(image, "sleep 60", variables=with_layers(a, b))
    variables = with_layers(b, c, data=f"{session.directory}/work/other")
    second = session.background(image, "sleep 60", variables=variables)
    assert len(session.named("layer-")) == 2
    references = {name: layer["References"] for name, layer in layers_of(session).items()}
    assert references == {image.name: 2, "a.layer": 1, "b.layer": 2, "c.layer": 1}

    first.kill()  # b goes on being used where it is, and a stays beside it
    first.wait()
    wait_for(lambda: layers_of(session)["a.layer"]["State"] == "idle")
    assert layers_of(session)["b.layer"]["State"] == "mounted"
    session.output("fimctl", "prune")
    assert session.output(image, "fim-exec", "cat", "/b", variables=variables) == "b"

    again = session.background(image, "sleep 60", variables=with_layers(a))
    assert layers_of(session)["a.layer"]["State"] == "mounted"
    assert len(session.named("layer-")) == 2
    for program in (second, again):
        program.kill()
        program.wait()
    session.wait_until_clean()


def test_the_next_daemon_takes_over_each_of_them(
    session: Session, image: Path, make_layers: MakeLayers
) -> None:
    a, b = make_layers("a", "b")
    variables = with_layers(a, b)
    program = session.background(image, "sleep 60", variables=variables)
    before = {name: layer["MountPoint"] for name, layer in layers_of(session).items()}
    os.kill(session.daemon(), signal.SIGKILL)
    after = layers_of(session)
    assert {name: layer["MountPoint"] for name, layer in after.items()} == before
    assert {layer["References"] for layer in after.values()} == {1}
    assert session.output(image, "fim-exec", "cat", "/a", "/b", variables=variables) == "ab"
    assert len(session.named("layer-")) == 1
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_with_their_process_all_of_them_fail_and_the_next_start_mounts_afresh(
    session: Session, image: Path, make_layers: MakeLayers, busybox: Path
) -> None:
    a, b = make_layers("a", "b")
    elsewhere = session.adopt(busybox, "elsewhere/busybox")  # a program that needs no layer
    variables = with_layers(a, b)
    script = f"exec {elsewhere} sleep 60"
    programs = [
        session.background(image, script, variables=variables),
        session.background(
            image, script, variables=with_layers(a, data=f"{session.directory}/work/other")
        ),
    ]
    wait_for(lambda: len(session.named("busybox")) == len(programs))
    process = session.one_named("layer-")
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: {each["State"] for each in session.objects("ps")} == {"failed"})
    for program in programs:
        program.kill()
        program.wait()
    wait_for(lambda: session.objects("ps") == [])
    assert session.output(image, "fim-exec", "cat", "/a", "/b", variables=variables) == "ab"
    session.wait_until_clean()


def test_a_bad_layer_of_one_start_keeps_no_other_start_from_the_good_ones(
    session: Session, image: Path, make_layers: MakeLayers
) -> None:
    good, other, bad = make_layers("good", "other", "bad")
    damage(bad)
    for number in range(5):
        data = f"{session.directory}/work/data{number}"
        refused = session.start(image, "fim-exec", "true", variables=with_layers(good, bad))
        variables = with_layers(good, other, data=data)
        assert session.output(image, "fim-exec", "cat", "/other", variables=variables) == "other"
        assert refused.wait(20) == 125
        session.output("fimctl", "prune")
    session.wait_until_clean()
