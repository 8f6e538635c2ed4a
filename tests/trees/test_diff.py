"""Changes: what of an upper is a layer's own, copied up, and what is not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fimd.trees.diff import Kind, changes
from fimd.trees.entries import entry_of
from fimd.trees.merged import Merged, open_layers
from tests.support.layers import MakeLayer

SECOND = 1_000_000_000
TIME = 1_700_000_001 * SECOND + 987_654_321


def one_file(directory: Path) -> None:
    (directory / "file").write_text("one")
    os.utime(directory / "file", ns=(TIME, TIME))


@pytest.mark.parametrize(
    ("time", "is_other"),
    [
        (TIME, False),
        (TIME + 1, True),
        (TIME - 300_000_000, True),
        # a copy that was made where times are coarser
        (TIME // 100 * 100, False),
        (TIME // 10_000_000 * 10_000_000, False),
        (TIME // SECOND * SECOND, False),
        (TIME // SECOND * SECOND - SECOND, False),
        (TIME // SECOND * SECOND + SECOND, True),
    ],
)
def test_a_file_of_the_same_size_is_another_by_its_nanoseconds(
    make_layer: MakeLayer, time: int, is_other: bool
) -> None:
    with open_layers([make_layer(one_file)]) as images:
        lower = Merged(images)
        node = lower.find(b"file")
        assert node is not None
        entry = replace(entry_of(b"file", *node.parts[0]), mtime_ns=time)
        found = [change.kind for change in changes([entry], lower)]
    assert found == ([Kind.CHANGED] if is_other else [])
