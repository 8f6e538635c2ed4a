"""How layers are divided among the mounts that show them."""

import os

import pytest

from fimd.layers.engines import Engine
from fimd.layers.mounted import EMBEDDED, LayerMount
from fimd.layers.source import LayerSource
from fimd.mounts.process import Process


async def _never(_layers: object, _mount_point: str) -> Process:
    raise AssertionError("nothing is mounted here")


def sources(count: int) -> list[LayerSource]:
    return [LayerSource("/image", number, 1, 1, 1, b"") for number in range(count)]


@pytest.mark.parametrize(
    ("layers", "processors", "each"),
    [
        (0, 4, []),
        (1, 4, [1]),
        (16, 4, [16]),
        (17, 4, [9, 8]),
        (17, 1, [17]),
        (60, 2, [30, 30]),
        (300, 1, [200, 100]),  # as many descriptors as one message takes
    ],
)
def test_a_mount_shows_as_many_layers_as_leave_no_processor_idle(
    monkeypatch: pytest.MonkeyPatch, layers: int, processors: int, each: list[int]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    parts = Engine("embedded", _never, most=200).divide(sources(layers))
    assert [len(part) for part in parts] == each
    assert [layer for part in parts for layer in part] == sources(layers)


def test_an_external_program_mounts_each_layer_at_a_place_of_its_own() -> None:
    engine = Engine("external", _never, most=1)
    assert engine.divide(sources(3)) == [[source] for source in sources(3)]
    [layer] = sources(1)
    assert LayerMount("x", "/point", engine.name).place(layer) == "/point"
    assert LayerMount("x", "/point", EMBEDDED).place(layer) == f"/point/{layer.id}"
