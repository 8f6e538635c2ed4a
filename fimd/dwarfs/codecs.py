"""Decompressing a section's payload, each codec imported when it is first needed.

Every codec here is told the most that it may produce and refuses more before it allocates, so a
small file cannot fill the memory. Framing: section 3 of the format's description, DwarFS 2.5.
"""

import importlib
import mmap
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from fimd.dwarfs.errors import CodecMissingError, DamagedError, UnsupportedError
from fimd.dwarfs.format import Compression
from fimd.dwarfs.memory import Memory
from fimd.dwarfs.thrift import Reader

Buffer = bytes | memoryview
_WORTH_A_MAPPING = 1 << 20  # bytes
_MOST_PAGES_AT_ONCE = 64 << 20  # a frame may claim a size that it does not have
_MOST_STREAMS = 64  # one after another; mkdwarfs writes one
_LZMA_MEMORY = 1 << 30  # bytes; level 9 needs 65 MiB, and its dictionary can be set far larger


def decompress(compression: int, payload: Buffer, limit: int) -> Buffer:
    """The content of a section, at most `limit` bytes.

    May be the payload itself where it is not compressed. Safe in threads; all but FLAC and RICEPP
    let other threads run. Raises DwarfsError.
    """
    *_, (content, _) = decompress_in_steps(compression, payload, limit)
    return content


def decompress_in_steps(
    compression: int, payload: Buffer, limit: int, memory: Memory | None = None
) -> Iterator[tuple[Buffer, int]]:
    """The same with, again and again, how many bytes of it are there, until all of them are.

    Only large ZSTD sections come in more than one step. Whether a section is intact is known
    with the last one, so take an earlier one's bytes only where a checksum vouches for the payload.
    Large blocks come in memory of `memory`'s.
    """
    if compression not in _CODECS and compression != Compression.ZSTD:
        raise UnsupportedError(f"unknown compression {compression}")
    try:
        if compression == Compression.ZSTD:
            yield from _zstd(payload, limit, memory or Memory())
        else:
            content = _CODECS[compression](payload, limit)
            yield content, len(content)
    except ImportError as error:
        name = Compression(compression).name
        raise CodecMissingError(
            f"{name} compression needs the Python package {error.name}: install it"
        ) from error
    except MemoryError as error:
        raise DamagedError(f"not enough memory to decompress up to {limit} bytes") from error


def name(compression: int) -> str:
    """The codec's name, or its number where it is unknown."""
    try:
        return Compression(compression).name.lower()
    except ValueError:
        return f"unknown ({compression})"


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise DamagedError(f"decompresses to {size} bytes, more than the {limit} that may be there")


def _check_exact(data: Buffer, size: int, codec: str) -> None:
    if len(data) != size:
        raise DamagedError(f"{codec}: {len(data)} bytes came out instead of {size}")


def _none(payload: Buffer, limit: int) -> Buffer:
    _check_size(len(payload), limit)
    return payload


def _lzma(payload: Buffer, limit: int) -> bytes:
    import lzma  # noqa: PLC0415

    parts: list[bytes] = []
    rest = bytes(payload)
    try:
        while rest:
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)
            produced = stream.decompress(rest, max_length=limit + 1)
            parts.append(produced)
            limit -= len(produced)
            if limit < 0:
                raise DamagedError("decompresses to more bytes than may be there")
            if not stream.eof:
                raise DamagedError("LZMA: the stream ends too early")
            rest = stream.unused_data.lstrip(b"\0")  # padding between streams
            if rest and len(parts) == _MOST_STREAMS:
                raise DamagedError(f"LZMA: more than {_MOST_STREAMS} streams")
    except lzma.LZMAError as error:
        raise DamagedError(f"LZMA decompression failed: {error}") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _zstd(payload: Buffer, limit: int, memory: Memory) -> Iterator[tuple[Buffer, int]]:
    import zstandard  # noqa: PLC0415

    try:
        size = zstandard.frame_content_size(payload)
        if size < 0:
            raise DamagedError("ZSTD content size unknown")
        _check_size(size, limit)
        if _WORTH_A_MAPPING <= size <= _MOST_PAGES_AT_ONCE:
            yield from _zstd_into_mapping(payload, memory.take(size))
            return
        data = zstandard.ZstdDecompressor().decompress(payload)
    except zstandard.ZstdError as error:
        raise DamagedError(f"ZSTD decompression failed: {error}") from error
    _check_exact(data, size, "ZSTD")
    yield data, size


def _zstd_into_mapping(payload: Buffer, mapping: mmap.mmap) -> Iterator[tuple[memoryview, int]]:
    from fimd.dwarfs import zstd  # noqa: PLC0415

    block = memoryview(mapping)
    if zstd.is_available():
        for done in zstd.decompress(payload, mapping):
            yield block.toreadonly(), done
        return
    import zstandard  # noqa: PLC0415

    size = len(block)
    # with the whole frame and room for its content the package works as for a single call
    with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
        done = 0
        while done < size and (count := reader.readinto(block[done:])):
            done += count
    _check_exact(block[:done], size, "ZSTD")
    yield block.toreadonly(), size


def _lz4(payload: Buffer, limit: int) -> bytes:
    import lz4.block  # noqa: PLC0415

    if len(payload) < 4:
        raise DamagedError("LZ4: the payload is cut short")
    size = int.from_bytes(payload[:4], "little")
    _check_size(size, limit)
    try:
        data: bytes = lz4.block.decompress(payload)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise DamagedError(f"LZ4 decompression failed: {error}") from error
    _check_exact(data, size, "LZ4")
    return data


def _sized(payload: Buffer, limit: int) -> tuple[int, Reader]:
    """The size that leads the newer codecs' payloads, and a reader of what follows it."""
    reader = Reader(bytes(payload))
    size = reader.varint()
    _check_size(size, limit)
    return size, reader


def _brotli(payload: Buffer, limit: int) -> bytes:
    size, reader = _sized(payload, limit)
    from fimd.dwarfs.brotli import decompress as decode  # noqa: PLC0415

    return decode(reader.data[reader.position :], size)


def _flac(payload: Buffer, limit: int) -> Buffer:
    size, reader = _sized(payload, limit)
    from fimd.dwarfs.flac import decompress as decode  # noqa: PLC0415

    header = _small_integers(reader.structure())
    return decode(reader.data, reader.position, size, header)


def _ricepp(payload: Buffer, limit: int) -> Buffer:
    size, reader = _sized(payload, limit)
    from fimd.dwarfs.ricepp import decompress as decode  # noqa: PLC0415

    header = _small_integers(reader.structure())
    return decode(reader.data, reader.position, size, header)


def _small_integers(fields: dict[int, Any]) -> dict[int, int]:
    if not all(isinstance(value, int) for value in fields.values()):
        raise DamagedError("a codec's header holds something that is no number")
    return fields


def load_codecs() -> None:
    """Import what is otherwise imported at first use: who enters a jail finds no modules there."""
    for name in ("lzma", "zstandard", "lz4.block", "brotli", "xxhash"):
        with suppress(ImportError):  # then its use says so
            importlib.import_module(name)
    from fimd.dwarfs import brotli, consistency, flac, ricepp, zstd  # noqa: F401, PLC0415

    zstd.is_available()
    brotli.is_available()


_CODECS: dict[int, Callable[[Buffer, int], Buffer]] = {
    Compression.NONE: _none,
    Compression.LZMA: _lzma,
    Compression.LZ4: _lz4,
    Compression.LZ4HC: _lz4,  # the same framing: only the compressor differs
    Compression.BROTLI: _brotli,
    Compression.FLAC: _flac,
    Compression.RICEPP: _ricepp,
}
