"""What honest trees need is far from the bounds, where they compress best."""

import os
from pathlib import Path

import pytest

from fimd.dwarfs import Image, bounds
from fimd.dwarfs.format import SectionType
from fimd.dwarfs.write import create

FILES, SNAPSHOTS = 1000, 40


@pytest.mark.parametrize("level", [7, 9])
def test_snapshots_of_hard_links_are_read(tmp_path: Path, level: int) -> None:
    """A hundred bits of each name compress to less than one."""
    first = tmp_path / "tree" / "000"
    first.mkdir(parents=True)
    for number in range(FILES):
        (first / f"{number:05}").touch()
    for snapshot in range(1, SNAPSHOTS):
        folder = first.with_name(f"{snapshot:03}")
        folder.mkdir()
        for number in range(FILES):
            os.link(first / f"{number:05}", folder / f"{number:05}")
    create(tmp_path / "tree", tmp_path / "image", level=level)
    with Image.open(tmp_path / "image") as image:
        [stored] = [s.size for s in image.table.sections if s.type == SectionType.METADATA_V2]
        assert sum(1 for _ in image.walk()) == 1 + SNAPSHOTS * (1 + FILES)
        assert image.metadata.entry_count < bounds.items(stored) / 3
        assert len(image.metadata.frozen.data) < bounds.metadata_bytes(stored) / 4


def test_more_bytes_warrant_more() -> None:
    sizes = [1 << power for power in range(36)]
    for bound in (bounds.metadata_bytes, bounds.items, bounds.chunks):
        assert [bound(size) for size in sizes] == sorted(bound(size) for size in sizes)
    assert bounds.items(1 << 10) == 1 << 16
    assert bounds.metadata_bytes(1 << 10) == 4 << 20
