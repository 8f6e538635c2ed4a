"""Any bytes at all: an image that can be read, or an ImageError, soon and in little memory."""

import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fimd.flatimage.chain import Chain, read_chain
from fimd.flatimage.errors import ImageError
from fimd.flatimage.file import open_image
from fimd.flatimage.layout import find_layout
from fimd.flatimage.reserved import read_settings

if TYPE_CHECKING:
    from tests.flatimage.conftest import Build, Sample

Dwarfs = Callable[..., bytes]
MIB = 1 << 20

INTERESTING = st.sampled_from(
    [0, 1, 7, 63, 64, 72, 4096, 1 << 16, 1 << 31, 1 << 32, 1 << 48, (1 << 63) - 1, (1 << 64) - 1]
).map(lambda number: struct.pack("<Q", number))
PATCH = st.one_of(
    st.binary(min_size=1, max_size=80),
    INTERESTING,
    st.sampled_from([b"DWARFS\x02\x05", b"\x7fELF", b"FIM_RESERVED_OFFSET=9\n", b"{", b'"', b"\0"]),
)


def look(path: Path) -> Chain | None:
    """The chain, after reading everything else; None where the library said why not."""
    try:
        with open_image(path) as fd:
            layout = find_layout(fd)
            chain = read_chain(fd, layout)
            position = layout.chain_offset
            for layer in chain.layers:
                assert position <= layer.record_offset
                position = layer.end
            assert position <= chain.end
            read_settings(fd, layout)
            return chain
    except ImageError as error:
        text = str(error)
        assert text.count("\n") == 0
        assert path.name in text
        return None


@pytest.fixture(scope="module", params=["script", "elf-v2", "elf-v1"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Sample":
    from tests.flatimage.conftest import dwarfs, make_image

    folder = tmp_path_factory.mktemp("hostile")
    return make_image(folder, request.param, [dwarfs(b"a" * 99), dwarfs(b"b"), dwarfs(b"c")])


@settings(max_examples=150, deadline=2000)
@given(data=st.data())
def test_no_change_of_a_few_bytes_gives_another_error(image: "Sample", data: st.DataObject) -> None:
    original = image.path.read_bytes()
    places = st.one_of(
        st.integers(0, 300),
        st.integers(0, image.reserved_offset + 64),
        st.integers(image.chain_offset - 16, len(original)),
        st.sampled_from([image.reserved_offset + 11, image.reserved_offset + 4107]),
        st.sampled_from([offset - 8 for offset, _ in image.layers]),
    )
    patches = data.draw(st.lists(st.tuples(places, PATCH), min_size=1, max_size=5))
    cut = data.draw(st.none() | st.integers(0, len(original)))
    try:
        for offset, new in patches:
            image.patch(offset, new)
        if cut is not None:
            image.cut(cut)
        look(image.path)
    finally:
        image.path.write_bytes(original)


@settings(max_examples=150, deadline=2000)
@given(content=st.lists(PATCH | st.binary(max_size=400), max_size=30).map(b"".join))
@pytest.mark.parametrize("start", [b"", b"\x7fELF\x02\x01", b"#!/bin/sh\nFIM_RESERVED_OFFSET=77\n"])
def test_no_bytes_at_all_give_another_error(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile-image"
    path.write_bytes(start + content)
    look(path)


def near_misses(size: int, spacing: int) -> bytes:
    """Records that look right up to the point where their sections have to be walked."""
    header = struct.pack("<6sBB40xIHHQ", b"DWARFS", 2, 5, 0, 0, 0, 0)
    one = (struct.pack("<Q", 1 << 20) + header).ljust(spacing, b"\xff")
    return one * (size // spacing)


def section_storm(size: int) -> bytes:
    """One endless row of empty sections, numbered right."""
    return b"".join(
        struct.pack("<6sBB40xIHHQ", b"DWARFS", 2, 5, number, 0, 0, 0)
        for number in range(size // 64)
    )


@pytest.mark.parametrize(
    "chain",
    [
        lambda: b"DWARFS\x02" * (8 * MIB),
        lambda: near_misses(48 * MIB, 72),
        lambda: near_misses(48 * MIB, 4096),
        lambda: struct.pack("<Q", 5) + section_storm(32 * MIB),
        lambda: section_storm(32 * MIB),
        lambda: struct.pack("<Q", 1) * (4 * MIB),
        lambda: bytes(64 * MIB) + b"x",
        lambda: (struct.pack("<Q", 16) + b"DWARFS\x02\0" + bytes(8)) * 500_000,
    ],
    ids=["magic", "dense", "sparse", "storm", "storm without length", "ones", "zeros", "old"],
)
@pytest.mark.parametrize("kind", ["script", "elf-v1"])
def test_what_is_made_to_keep_us_busy_does_not(
    build: "Build", kind: str, chain: Callable[[], bytes]
) -> None:
    sample = build(kind)
    sample.cut(sample.chain_offset)
    sample.add(chain())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    look(sample.path)
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


@pytest.mark.parametrize("folder", ["damaged", "upstream/badfs", "embedded"])
def test_damaged_layers_never_damage_more_than_themselves(
    build: "Build", make_dwarfs: Dwarfs, sample_images: Path, folder: str
) -> None:
    good = make_dwarfs(b"good")
    for path in sorted((sample_images / folder).iterdir()):
        if path.suffix in (".tsv", ".md") or path.stat().st_size > 2 * MIB:
            continue
        layer = path.read_bytes()
        sample = build("script", [good, layer, good])
        chain = look(sample.path)
        assert chain is not None, path.name
        found = {(one.offset, one.size) for one in chain.layers}
        assert {sample.layers[0], sample.layers[2]} <= found <= set(sample.layers), path.name
