import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fimd.flatimage.errors import DamagedImageError, ImageError, NotAnImageError
from fimd.flatimage.file import open_image
from fimd.flatimage.layout import Kind, Layout, find_layout

if TYPE_CHECKING:
    from tests.flatimage.conftest import Build

V2_SIZE = 4 << 20
V1_SIZE = 2 << 20


def layout_of(path: Path) -> Layout:
    with open_image(path) as fd:
        return find_layout(fd)


@pytest.mark.parametrize("kind", ["script", "elf-v2", "elf-v1"])
def test_each_kind_of_image_is_told_by_its_beginning(build: "Build", kind: str) -> None:
    sample = build(kind)
    layout = layout_of(sample.path)
    assert (layout.kind, layout.reserved_offset) == (kind, sample.reserved_offset)
    assert layout.chain_offset == sample.chain_offset


def test_a_wrong_offset_in_the_section_is_made_good_by_walking_the_tools(build: "Build") -> None:
    sample = build("elf-v2")
    data = sample.path.read_bytes()
    sample.patch(data.index(struct.pack("<I", sample.reserved_offset)), struct.pack("<I", 77))
    assert layout_of(sample.path) == Layout(Kind.ELF_V2, sample.reserved_offset, V2_SIZE)


def test_without_section_headers_the_tools_and_the_table_tell(build: "Build") -> None:
    for kind, size in (("elf-v2", V2_SIZE), ("elf-v1", V1_SIZE)):
        sample = build(kind)
        sample.patch(40, bytes(8))  # e_shoff
        sample.patch(sample.reserved_offset - 9, b"\xff" * 9)  # so that no other table fits
        assert layout_of(sample.path) == Layout(Kind(kind), sample.reserved_offset, size)


def test_a_damaged_tool_does_not_hide_the_chain_of_a_v1_image(
    build: "Build", make_dwarfs: Callable[..., bytes]
) -> None:
    sample = build("elf-v1", [make_dwarfs(b"a"), make_dwarfs(b"b")])
    first_tool = sample.path.read_bytes().index(b"\x7fELF", 64) - 8
    sample.patch(first_tool, b"\xff" * 8)
    sample.patch(sample.reserved_offset - 2000, b"\xff" * 2000)
    assert layout_of(sample.path) == Layout(Kind.ELF_V1, sample.reserved_offset, V1_SIZE)


def test_a_damaged_first_layer_does_not_move_the_chain(
    build: "Build", make_dwarfs: Callable[..., bytes]
) -> None:
    for kind in ("elf-v2", "elf-v1"):
        sample = build(kind, [make_dwarfs(b"a" * 500), make_dwarfs(b"b")])
        sample.patch(sample.chain_offset, b"\xff" * 100)
        assert layout_of(sample.path).chain_offset == sample.chain_offset


def test_an_image_without_layers_is_an_image(build: "Build") -> None:
    for kind in ("script", "elf-v2"):
        sample = build(kind)
        sample.cut(sample.chain_offset)
        assert layout_of(sample.path).chain_offset == sample.chain_offset


def test_an_image_that_ends_in_its_reserved_space_is_incomplete(build: "Build") -> None:
    sample = build("script")
    sample.cut(sample.chain_offset - 1)
    with pytest.raises(DamagedImageError, match="incomplete"):
        layout_of(sample.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\necho hello\n",
        b"#!/bin/sh\nFIM_RESERVED_OFFSET=-5\n",
        b"#!/bin/sh\nFIM_RESERVED_OFFSET=0x1000\n",
        b"#!/bin/sh\nFIM_RESERVED_OFFSET=99999999999999999999\n",
        b"#!/bin/sh\nFIM_RESERVED_OFFSET=12\n",
        b"#!/bin/sh\n" + b" " * 4096 + b"\nFIM_RESERVED_OFFSET=8192\n",
        b"DWARFS\x02\x05" + bytes(100),
        b"\x7fELF",
        b"\x7fELF" + b"\xff" * 5000,
    ],
)
def test_what_is_no_image_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="thing"):
        layout_of(path)


def test_an_ordinary_program_is_no_image() -> None:
    with pytest.raises(NotAnImageError, match="carries no DwarFS layer"):
        layout_of(Path("/bin/true"))


def test_a_directory_and_a_fifo_are_no_images(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(NotAnImageError, match=str(path)):
            layout_of(path)
