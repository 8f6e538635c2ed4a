import contextlib
import lzma
import random
import sys
from collections.abc import Callable

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fimd.dwarfs import codecs, ricepp
from fimd.dwarfs.errors import CodecMissingError, DamagedError, UnsupportedError
from fimd.dwarfs.format import Compression
from fimd.dwarfs.thrift import Type, encode_struct, encode_varint


def brotli(data: bytes) -> bytes:
    module = pytest.importorskip("brotli")
    compressed: bytes = module.compress(data)
    return encode_varint(len(data)) + compressed


COMPRESSORS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.LZMA: lzma.compress,
    Compression.ZSTD: zstandard.compress,
    Compression.LZ4: lz4.block.compress,
    Compression.LZ4HC: lambda data: lz4.block.compress(data, mode="high_compression"),
    Compression.BROTLI: brotli,
}
everyone = pytest.mark.parametrize("codec", COMPRESSORS)
DATA = random.Random(1).randbytes(1000) * 50


@everyone
def test_what_was_compressed_comes_out(codec: Compression) -> None:
    for data in (b"", b"x", DATA):
        assert bytes(codecs.decompress(codec, COMPRESSORS[codec](data), len(data))) == data


@everyone
def test_more_than_may_come_out_is_refused(codec: Compression) -> None:
    with pytest.raises(DamagedError):
        codecs.decompress(codec, COMPRESSORS[codec](DATA), len(DATA) - 1)


@pytest.mark.parametrize("codec", [codec for codec in COMPRESSORS if codec])
def test_damage_is_refused_and_never_something_else(codec: Compression) -> None:
    payload = COMPRESSORS[codec](DATA)
    source = random.Random(2)
    for _ in range(200):
        changed = bytearray(payload)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        with contextlib.suppress(DamagedError):
            codecs.decompress(
                codec, bytes(changed[: source.randrange(len(changed) + 1)]), len(DATA)
            )


def test_a_large_block_is_decompressed_and_its_damage_refused() -> None:
    data = random.Random(3).randbytes(1 << 19) * 5
    payload = zstandard.compress(data, 1)
    block = codecs.decompress(Compression.ZSTD, payload, len(data))
    assert bytes(block) == data
    assert memoryview(block).readonly
    for broken in (payload[:-1], payload[: len(payload) // 2], payload[:20] + payload[21:]):
        with pytest.raises(DamagedError):
            codecs.decompress(Compression.ZSTD, broken, len(data))


def test_several_xz_streams_and_their_padding_are_one_content() -> None:
    payload = lzma.compress(b"one") + lzma.compress(b"two") + bytes(8)
    assert codecs.decompress(Compression.LZMA, payload, 6) == b"onetwo"


def test_an_unknown_compression_is_named() -> None:
    with pytest.raises(UnsupportedError, match="unknown compression 9"):
        codecs.decompress(9, b"", 10)
    assert codecs.name(9) == "unknown (9)"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    with pytest.raises(CodecMissingError, match=r"LZ4 compression needs the Python package lz4"):
        codecs.decompress(Compression.LZ4, lz4_payload(), 10)


def lz4_payload() -> bytes:
    return b"\x01\0\0\0\x10x"


def test_brotli_without_the_library_uses_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("brotli")
    from fimd.dwarfs import brotli as ours

    monkeypatch.setattr(ours, "_library", lambda: None)
    assert codecs.decompress(Compression.BROTLI, brotli(DATA), len(DATA)) == DATA
    with pytest.raises(DamagedError):
        codecs.decompress(Compression.BROTLI, encode_varint(5) + brotli(DATA)[3:], len(DATA))


class BitWriter:
    def __init__(self) -> None:
        self.bits = 0
        self.count = 0

    def put(self, value: int, width: int) -> None:
        self.bits |= value << self.count
        self.count += width

    def bytes(self) -> bytes:
        return self.bits.to_bytes((self.count + 7) // 8, "little")


def rice_encoded(
    pixels: list[int], components: int, group: int, unused: int, kinds: list[int]
) -> bytes:
    """A stream with the given kind for each group in turn, as the format describes them."""
    out = BitWriter()
    lasts = [pixels[component] >> unused for component in range(components)]
    for last in lasts:
        out.put(last, 16)
    turn = 0
    for start in range(0, len(pixels), group * components):
        piece = pixels[start : start + group * components]
        for component in range(components):
            values = [pixel >> unused for pixel in piece[component::components]]
            kind = kinds[turn % len(kinds)]
            turn += 1
            if kind == 0 and any(value != lasts[component] for value in values):
                kind = 15
            out.put(kind, 4)
            for value in values if kind else []:
                if kind == 15:
                    swapped = value << unused
                    out.put(swapped >> 8 | (swapped & 0xFF) << 8, 16)
                    continue
                delta = (value - lasts[component] + 0x8000) % 0x10000 - 0x8000
                code = delta << 1 if delta >= 0 else (-delta << 1) - 1
                out.put(0, code >> kind - 1)
                out.put(1, 1)
                out.put(code & (1 << kind - 1) - 1, kind - 1)
                lasts[component] = value
            lasts[component] = values[-1]
    return out.bytes()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(0, 4),
    st.lists(st.integers(0, 4095), min_size=1, max_size=300),
    st.lists(st.integers(0, 15), min_size=1, max_size=5),
)
def test_ricepp_gives_back_the_pixels(
    components: int, unused: int, values: list[int], kinds: list[int]
) -> None:
    pixels = [value << unused for value in values * components]
    data = b"".join(pixel.to_bytes(2, "big") for pixel in pixels)
    stream = rice_encoded(pixels, components, 16, unused, kinds)
    header = {1: 16, 2: components, 3: 2, 4: unused, 5: True, 6: 1}
    assert ricepp.decompress(stream, 0, len(data), header) == data


def test_a_ricepp_stream_that_never_ends_a_number_is_refused() -> None:
    header = encode_struct(
        [(1, Type.I32, 128), (2, Type.I16, 1), (3, Type.BYTE, 2), (6, Type.I16, 1)]
    )
    stream = bytes(2) + b"\x02" + bytes(1 << 20)
    with pytest.raises(DamagedError, match="too long"):
        codecs.decompress(Compression.RICEPP, encode_varint(1 << 20) + header + stream, 1 << 20)
