import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fimd.flatimage.chain import Chain, read_chain
from fimd.flatimage.errors import DamagedImageError
from fimd.flatimage.file import open_image
from fimd.flatimage.layout import find_layout

if TYPE_CHECKING:
    from tests.flatimage.conftest import Build, Sample

Dwarfs = Callable[..., bytes]


def chain_of(path: Path) -> Chain:
    with open_image(path) as fd:
        return read_chain(fd, find_layout(fd))


def extents(chain: Chain) -> list[tuple[int, int]]:
    return [(layer.offset, layer.size) for layer in chain.layers]


@pytest.fixture(params=["script", "elf-v2", "elf-v1"])
def four(request: pytest.FixtureRequest, build: "Build", make_dwarfs: Dwarfs) -> "Sample":
    """An image of four layers, of different sizes."""
    return build(request.param, [make_dwarfs(bytes([n]) * (300 + n)) for n in range(1, 5)])


def test_layers_are_found_bottom_first(four: "Sample") -> None:
    chain = chain_of(four.path)
    assert extents(chain) == four.layers
    assert (chain.faults, chain.torn_offset, chain.end) == ((), None, four.size)


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
@pytest.mark.parametrize("damage", ["length", "header", "both", "zeroed"])
def test_a_bad_record_does_not_hide_the_others(four: "Sample", bad: int, damage: str) -> None:
    offset, size = four.layers[bad]
    if damage in ("length", "both"):
        four.patch(offset - 8, struct.pack("<Q", size + 3))
    if damage in ("header", "both"):
        four.patch(offset, b"\xa5" * 64)
    if damage == "zeroed":
        four.patch(offset - 8, bytes(8))
    chain = chain_of(four.path)
    assert extents(chain) == [layer for n, layer in enumerate(four.layers) if n != bad]
    (fault,) = chain.faults
    assert (fault.offset, fault.end) == (offset - 8, offset + size)
    assert chain.torn_offset is None
    assert f"offset {offset - 8}" in str(fault)
    if damage in ("length", "zeroed"):
        assert fault.hidden is not None
        assert (fault.hidden.offset, fault.hidden.size) == (offset, size)


def test_two_bad_records_do_not_hide_what_is_between_them(four: "Sample") -> None:
    for bad in (0, 2):
        four.patch(four.layers[bad][0] - 8, b"\xa5" * 72)
    chain = chain_of(four.path)
    assert extents(chain) == [four.layers[1], four.layers[3]]
    assert [fault.offset for fault in chain.faults] == [four.layers[n][0] - 8 for n in (0, 2)]


def test_an_image_inside_a_layer_is_no_layer_of_this_one(
    build: "Build", make_dwarfs: Dwarfs
) -> None:
    inner = make_dwarfs(b"inner")
    nested = make_dwarfs(struct.pack("<Q", len(inner)) + inner + b"more")
    sample = build("elf-v2", [nested, make_dwarfs(b"top")])
    assert extents(chain_of(sample.path)) == sample.layers
    sample.patch(sample.chain_offset, bytes(8))
    assert extents(chain_of(sample.path)) == sample.layers[1:]


def test_the_magic_just_before_a_layer_does_not_hide_it(
    build: "Build", make_dwarfs: Dwarfs
) -> None:
    for gap in range(7, 60):
        decoy = (b"DWARFS\x02\x05" + bytes(80))[:gap]
        sample = build("script", [b"?" * 90 + decoy, make_dwarfs(b"top")])
        sample.patch(sample.chain_offset, b"\xff" * 8)
        assert extents(chain_of(sample.path)) == sample.layers[1:]


def test_layers_without_index_or_from_old_releases_are_layers(
    build: "Build", make_dwarfs: Dwarfs, sample_images: Path
) -> None:
    layers = [
        make_dwarfs(index=False),
        (sample_images / "upstream/compat/compat-v0.2.3.dwarfs").read_bytes(),
        (sample_images / "made/mix-noindex.dwarfs").read_bytes(),
        (sample_images / "made/tiny.dwarfs").read_bytes(),
    ]
    sample = build("elf-v2", layers)
    chain = chain_of(sample.path)
    assert (extents(chain), chain.faults) == (sample.layers, ())


@pytest.mark.parametrize(
    "tail",
    [
        b"\0",
        b"\0" * 7,
        b"\0" * 72,
        b"\0" * 72 + b"payload" * 1000,
        b"\0" * 8 + b"junk",
        b"\x12",
        struct.pack("<Q", 5000),
        struct.pack("<Q", 5000) + b"DW",
        struct.pack("<Q", 5000) + b"DWARFS\x02\x05" + bytes(1000),
    ],
)
def test_an_interrupted_append_is_a_torn_tail(four: "Sample", tail: bytes) -> None:
    size = four.size
    four.add(tail)
    chain = chain_of(four.path)
    assert extents(chain) == four.layers
    assert (chain.torn_offset, chain.faults) == (size, ())


@pytest.mark.parametrize(
    "start", [bytes(72), struct.pack("<Q", 1 << 30) + b"DWARFS\x02\x05"], ids=["ours", "theirs"]
)
def test_an_image_in_the_payload_of_an_interrupted_append_is_not_taken_for_a_layer(
    four: "Sample", make_dwarfs: Dwarfs, start: bytes
) -> None:
    size, inner = four.size, make_dwarfs(b"inner")
    four.add(start + b"x" * 99 + struct.pack("<Q", len(inner)) + inner + b"and so on")
    chain = chain_of(four.path)
    assert (extents(chain), chain.torn_offset) == (four.layers, size)


def test_unknown_bytes_at_the_end_are_a_fault_and_not_torn(four: "Sample") -> None:
    size = four.size
    four.add(b"somebody's signature, or who knows what")
    chain = chain_of(four.path)
    assert extents(chain) == four.layers
    assert chain.torn_offset is None
    assert [fault.offset for fault in chain.faults] == [size]


def test_an_incomplete_base_layer_is_a_fault_and_not_torn(build: "Build") -> None:
    sample = build("script")
    sample.cut(sample.size - 1)
    chain = chain_of(sample.path)
    assert (chain.layers, chain.torn_offset) == ((), None)
    assert "should follow, but the file ends" in chain.faults[0].reason


def test_a_file_full_of_faults_is_given_up(build: "Build", make_dwarfs: Dwarfs) -> None:
    sample = build("script", [make_dwarfs(b"x") for _ in range(200)])
    for offset, _ in sample.layers[::2]:
        sample.patch(offset, b"\0")
    with pytest.raises(DamagedImageError, match="no real image"):
        chain_of(sample.path)
