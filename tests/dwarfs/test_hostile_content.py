"""Sections of a KiB or so that unpack to very much: in little memory and time, or not at all."""

import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fimd.dwarfs import codecs
from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.thrift import BOOL, Type, encode_struct, encode_varint
from tests.dwarfs import hostile

SECONDS = 2.0  # of CPU
MEMORY = 112 << 20  # bytes, of which the interpreter with its modules has 40 MiB
LARGEST = 1 << 30  # of a block, in any image
USUAL = 1 << 26  # the largest that mkdwarfs makes by itself

Written = Callable[[bytes], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(content: bytes) -> Path:
        path = tmp_path / "hostile.dwarfs"
        path.write_bytes(content)
        return path

    return write


def zstd(size: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=19).compressobj(size=size)
    piece = bytes(1 << 20)
    return b"".join([packer.compress(piece) for _ in range(size >> 20)]) + packer.flush()


def xz(size: int) -> bytes:
    packer = lzma.LZMACompressor(preset=1)
    piece = bytes(1 << 20)
    return b"".join([packer.compress(piece) for _ in range(size >> 20)]) + packer.flush()


def flac(frames: int, subframe: bytes, size: int) -> bytes:
    """Frames of 65 536 samples of eight bits."""
    header = encode_struct([(1, Type.I16, 1), (2, Type.BYTE, 8), (3, Type.BYTE, 0x40)])
    stream = b"fLaC" + bytes([0x80, 0, 0, 34]) + bytes(34)
    frame = bytes([0xFF, 0xF8, 0x70, 0, 0, 0xFF, 0xFF, 0]) + subframe + bytes(2)
    return encode_varint(size) + header + stream + frame * frames


def ricepp(size: int, block_size: int, stream: bytes) -> bytes:
    header = encode_struct(
        [
            (1, Type.I32, block_size),
            (2, Type.I16, 1),
            (3, Type.BYTE, 2),
            (4, Type.BYTE, 0),
            (5, BOOL, False),
            (6, Type.I16, 1),
        ]
    )
    return encode_varint(size) + header + stream


CONSTANT = bytes([0, 7])
PREDICTED = bytes([0b01111110]) + bytes(32) + b"\x00\x00" + bytes(64)


def of_one_file(size: int, compression: Compression, payload: bytes, block_size: int) -> bytes:
    return hostile.image(hostile.one_file(size, block_size), [hostile.block(compression, payload)])


BLOCKS: dict[str, tuple[Compression, Callable[[], bytes], int]] = {
    "ZSTD": (Compression.ZSTD, lambda: zstd(LARGEST), LARGEST),
    "LZMA": (Compression.LZMA, lambda: xz(128 << 20), LARGEST),
    "LZ4": (Compression.LZ4, lambda: LARGEST.to_bytes(4, "little") + bytes(1000), LARGEST),
    "BROTLI": (Compression.BROTLI, lambda: encode_varint(LARGEST) + bytes(100), LARGEST),
    "FLAC": (Compression.FLAC, lambda: flac(16384, CONSTANT, LARGEST), LARGEST),
    "RICEPP": (Compression.RICEPP, lambda: ricepp(LARGEST, 512, bytes(1 << 20)), LARGEST),
}


@pytest.mark.parametrize("codec", BLOCKS)
def test_a_block_of_a_gibibyte_is_refused_where_a_little_is_stored_of_it(
    written: Written, probe: Any, codec: str
) -> None:
    compression, payload, size = BLOCKS[codec]
    path = written(of_one_file(1000, compression, payload(), size))
    outcome = probe(path)
    assert outcome.refused, outcome
    assert "more" in outcome.text
    assert f"{path}, section BLOCK, offset 0" in outcome.text
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY + USUAL, outcome


@pytest.mark.usefixtures("no_mounts_left")
def test_a_mount_of_it_answers_with_an_error_and_keeps_its_memory(
    written: Written, mount: Any, mounter: Any
) -> None:
    parent = mounter._process.pid
    path = written(of_one_file(1000, Compression.ZSTD, zstd(LARGEST), LARGEST))
    with mount(path) as root:
        worker = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                (root / "file").read_bytes()
        status = Path(f"/proc/{worker}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10 < MEMORY  # type: ignore[index]


def test_sound_that_is_all_the_same_is_decoded_at_once(written: Written, probe: Any) -> None:
    path = written(of_one_file(USUAL, Compression.FLAC, flac(1024, CONSTANT, USUAL), USUAL))
    assert path.stat().st_size < 16 << 10
    outcome = probe(path)
    assert outcome.text == f"served {4 << 20}", outcome
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY + 2 * USUAL, outcome


@pytest.mark.parametrize(
    "subframe",
    [
        pytest.param(bytes([0b00010000, 0b00001111, 0b10000000, 0]), id="fixed"),
        pytest.param(bytes([0b01111110]) + bytes(32) + b"\xe0\x00\xf8\0" + bytes(80), id="linear"),
    ],
)
def test_predicted_sound_without_bits_is_refused(subframe: bytes) -> None:
    with pytest.raises(DamagedError, match="FLAC"):
        codecs.decompress(Compression.FLAC, flac(1000, subframe, USUAL), USUAL)


def test_pixels_that_are_all_the_same_are_decoded_at_once(written: Written, probe: Any) -> None:
    payload = ricepp(16 << 20, 512, bytes(16 << 10))
    path = written(of_one_file(16 << 20, Compression.RICEPP, payload, USUAL))
    outcome = probe(path)
    assert outcome.text == f"served {4 << 20}", outcome
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY, outcome


def test_empty_streams_without_end_are_refused() -> None:
    with pytest.raises(DamagedError, match="streams"):
        codecs.decompress(Compression.LZMA, xz(0) * 100_000, 1000)


@pytest.mark.parametrize("kind", ["ZSTD", "LZMA"])
@pytest.mark.parametrize("number", [SectionType.METADATA_V2_SCHEMA, SectionType.METADATA_V2])
def test_metadata_that_unpacks_to_much_more_than_it_has_is_refused(
    written: Written, probe: Any, kind: str, number: SectionType
) -> None:
    schema, metadata = hostile.metadata({})
    bomb = (Compression[kind], {"ZSTD": zstd, "LZMA": xz}[kind](16 << 20))
    parts = {
        SectionType.METADATA_V2_SCHEMA: (Compression.NONE, schema),
        SectionType.METADATA_V2: (Compression.NONE, metadata),
        number: bomb,
    }
    outcome = probe(written(hostile.assemble((part, *parts[part]) for part in parts)))
    assert outcome.refused, outcome
    assert f"section {number.name}" in outcome.text
    assert outcome.peak < MEMORY, outcome


def test_a_schema_and_a_history_of_many_small_values_are_refused(
    written: Written, probe: Any
) -> None:
    schema, metadata = hostile.metadata({})
    empty: list[Any] = []
    history = encode_struct([(1, Type.LIST, (Type.STRUCT, [empty] * 200_000))])
    packed = zstandard.compress(history, 19)
    sections = [
        (SectionType.METADATA_V2_SCHEMA, Compression.NONE, schema),
        (SectionType.METADATA_V2, Compression.NONE, metadata),
        (SectionType.HISTORY, Compression.ZSTD, packed),
    ]
    outcome = probe(written(hostile.assemble(sections)))
    assert "Thrift data holds more than" in outcome.text
    assert "section HISTORY" in outcome.text
    assert outcome.peak < MEMORY, outcome
