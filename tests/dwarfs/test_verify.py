import shutil
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs import Image
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.verify import verify


def test_a_sound_image_has_no_fault(sample: Any) -> None:
    with Image.open(sample.file, sample.offset, sample.size) as image:
        assert verify(image, content=True) == []


def test_one_wrong_byte_in_any_section_is_found(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "image"
    original = images / "made/mix-S16.dwarfs"
    with Image.open(original) as image:
        table = image.table.sections
    for section in table[:: max(len(table) // 6, 1)]:
        shutil.copyfile(original, path)
        path.chmod(0o600)
        with Image.open(path) as image, path.open("r+b") as file:
            end = section.offset + section.size - 1
            file.seek(end)
            last = file.read(1)[0]
            file.seek(end)
            file.write(bytes([last ^ 1]))
            file.flush()
            faults = verify(image)
        assert [(fault.section, fault.offset) for fault in faults] == [
            (section.name, section.offset)
        ]


def test_a_missing_block_and_a_short_one_are_found_by_content(images: Path) -> None:
    for name, fault in (("missing-block", "out of range: 0 of 0"), ("short-block", "it has 3")):
        with Image.open(images / f"damaged/{name}.dwarfs") as image:
            assert verify(image) == []
            assert [fault in str(found) for found in verify(image, content=True)] == [True]


def test_progress_ends_with_all_bytes(images: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Image.open(images / "made/mix-S12.dwarfs") as image:
        verify(image, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (image.size, image.size)
    assert len(seen) == 231


def test_cancelling_stops(images: Path) -> None:
    calls = iter([False, True])
    with Image.open(images / "made/mix-S12.dwarfs") as image, pytest.raises(CancelledError):
        verify(image, cancelled=lambda: next(calls))
