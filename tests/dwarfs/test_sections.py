import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs import DwarfsError, Image, sections
from fimd.dwarfs.errors import DamagedError, NotAnImageError, UnsupportedError
from fimd.dwarfs.format import SECTION_HEADER
from fimd.dwarfs.source import Source


@pytest.fixture
def image(images: Path, tmp_path: Path) -> Path:
    path = tmp_path / "image.dwarfs"
    shutil.copyfile(images / "made/mix-S16.dwarfs", path)
    return path


def open_source(path: Path, offset: int = 0, size: int | None = None) -> Source:
    return Source.open(path, offset, size)


def fingerprint(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    with path.open("rb") as file:
        return sections.fingerprint(file.fileno(), offset, size)


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_packed_header_is_the_one_that_the_reference_wrote(sample: Any) -> None:
    with Image.open(sample.file, sample.offset, sample.size) as image:
        if image.table.minor != 5:
            return  # we write 2.5 only
        for section in image.table.sections:
            header, payload = sections.load(image.source, image.table, section)
            packed = sections.pack_section(
                section.number, section.type, header.compression, bytes(payload)
            )
            assert packed == image.source.read(section.offset, SECTION_HEADER.size)


def test_index_and_walk_find_the_same_sections(image: Path) -> None:
    source = open_source(image)
    indexed = sections.read_table(source)
    assert indexed.indexed
    source.end = indexed.sections[-1].offset  # without the index there is only the walk
    walked = sections.read_table(source)
    assert not walked.indexed
    assert walked.sections == indexed.sections[:-1]
    source.close()


def test_a_damaged_index_is_not_used(image: Path) -> None:
    table = sections.read_table(open_source(image))
    patch(image, table.sections[-1].offset + SECTION_HEADER.size + 9, b"\xff")
    again = sections.read_table(open_source(image))
    assert not again.indexed
    assert again.sections == table.sections


@pytest.mark.parametrize(
    ("name", "offset"), [("pre.bin", 100003), ("elf-like.bin", 123456), ("v1-pre.bin", 3333)]
)
def test_an_image_is_found_behind_other_bytes(images: Path, name: str, offset: int) -> None:
    assert sections.find_image(open_source(images / "embedded" / name)) == offset


def test_an_image_is_found_behind_a_hole_and_false_marks(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    content = (images / "made/tiny.dwarfs").read_bytes()
    start = 5 << 30
    with path.open("wb") as file:
        file.write(b"DWARFS\x02" * 1000 + content[:70])
        file.seek(start)
        file.write(content)
    assert sections.find_image(open_source(path)) == start


def test_where_there_is_no_image_none_is_found(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(os.urandom(3 << 20) + b"DWARFS\x02\x05")
    with pytest.raises(NotAnImageError, match="no DwarFS image found"):
        sections.find_image(open_source(path))


def test_a_fingerprint_is_of_the_content_wherever_it_lies(images: Path) -> None:
    whole = fingerprint(images / "made/mix-default.dwarfs")
    assert len(whole) == 16
    assert fingerprint(images / "embedded/both.bin", 65536, 305969) == whole
    assert fingerprint(images / "made/mix-noindex.dwarfs") != whole


def test_a_fingerprint_tells_a_change_of_any_header(image: Path) -> None:
    whole = fingerprint(image)
    table = sections.read_table(open_source(image))
    for section in table.sections:
        patch(image, section.offset + 8, bytes(32))
        assert fingerprint(image) != whole
        whole = fingerprint(image)


def test_images_without_checksums_have_their_files_fingerprint(
    images: Path, tmp_path: Path
) -> None:
    original = images / "upstream/compat/compat-v0.2.3.dwarfs"
    copy = tmp_path / "copy"
    shutil.copyfile(original, copy)
    assert fingerprint(original) == fingerprint(original)
    assert fingerprint(original) != fingerprint(copy)


@pytest.mark.parametrize("cut", [1, 63, 5000])
def test_an_image_cut_short_has_no_fingerprint(image: Path, cut: int) -> None:
    os.truncate(image, image.stat().st_size - cut)
    with pytest.raises(DamagedError):
        fingerprint(image)


def test_bytes_after_an_image_need_its_size(images: Path) -> None:
    path = images / "embedded/post.bin"
    with pytest.raises(DwarfsError):
        Image.open(path)
    with pytest.raises(DwarfsError):
        fingerprint(path)
    with Image.open(path, size=305969) as image:
        assert image.size == 305969


@pytest.mark.parametrize(("offset", "size"), [(-1, None), (10**9, None), (0, 10**9), (0, -1)])
def test_a_window_outside_of_the_file_is_refused(
    image: Path, offset: int, size: int | None
) -> None:
    with pytest.raises(NotAnImageError):
        open_source(image, offset, size)


@pytest.mark.parametrize(("major", "minor"), [(3, 5), (2, 7), (1, 0)])
def test_another_version_is_refused_by_name(image: Path, major: int, minor: int) -> None:
    patch(image, 6, bytes([major, minor]))
    with pytest.raises(UnsupportedError, match=rf"{major}\.{minor} is not known"):
        Image.open(image)


def test_an_error_names_file_section_and_offset(image: Path) -> None:
    with Image.open(image) as opened:
        section = opened.blocks[1]
        patch(image, section.offset + section.size - 1, b"\0\1")
        with pytest.raises(DamagedError) as caught:
            opened.load_block(1)
    assert str(image) in str(caught.value)
    assert f"section BLOCK, offset {section.offset}" in str(caught.value)


def test_a_file_cut_short_while_it_is_open_is_an_error(image: Path) -> None:
    with Image.open(image) as opened:
        os.truncate(image, 100)
        with pytest.raises(DamagedError, match="cut short"):
            opened.load_block(2)
