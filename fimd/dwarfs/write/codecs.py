"""Compressing a section's payload; `fimd.dwarfs.codecs` decompresses.

Whatever does not become smaller is stored as it is. The slow codecs are fed piece by piece, so that
a cancelled block stops within a second where it would take a minute.
"""

import lzma
from collections.abc import Callable, Iterator
from typing import Any, Final

import lz4.block
import zstandard

from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.format import Compression
from fimd.dwarfs.write.kinds import Kind
from fimd.dwarfs.write.levels import Codec

Buffer = bytes | memoryview
_PIECE: Final = 1 << 18  # a second or two of the slowest codec on a busy machine
_SMALLEST_DICTIONARY: Final = 1 << 16

Stop = Callable[[], bool]


def never() -> bool:
    """The `stop` of who never wants to."""
    return False


def compress(
    codec: Codec, data: Buffer, kind: Kind = Kind.OTHER, stop: Stop = never
) -> tuple[Compression, Buffer]:
    """The payload, and how it came out; `kind` is what the data mostly consists of.

    Safe in threads, and lets others run. Raises CancelledError where `stop` says so in between.
    """
    match codec.compression:
        case Compression.LZ4:
            compressed: Buffer = lz4.block.compress(data)
        case Compression.LZ4HC:
            compressed = lz4.block.compress(data, mode="high_compression", compression=codec.level)
        case Compression.ZSTD:
            compressed = _streamed(_zstd_stream(codec, len(data)), data, stop)
        case Compression.LZMA:
            compressed = _streamed(_lzma_stream(codec.level, len(data), kind), data, stop)
        case _:
            compressed = data
    if len(compressed) >= len(data):
        return Compression.NONE, data
    # as mkdwarfs does: one framing, one number
    is_hc = codec.compression is Compression.LZ4HC
    return Compression.LZ4 if is_hc else codec.compression, compressed


def _streamed(stream: Any, data: Buffer, stop: Stop) -> bytes:
    return b"".join(_pieces(stream, data, stop))


def _pieces(stream: Any, data: Buffer, stop: Stop) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        if stop():
            raise CancelledError("cancelled")
        yield stream.compress(data[start : start + _PIECE])
    yield stream.flush()


def _zstd_stream(codec: Codec, size: int) -> Any:
    """A zstd frame that says its size, as readers demand."""
    more = {} if codec.search_log is None else {"search_log": codec.search_log}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        codec.level, source_size=size, **more
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)


def _lzma_stream(level: int, size: int, kind: Kind) -> lzma.LZMACompressor:
    """An .xz stream whose dictionary is no larger than the data, and whose filters suit it."""
    dictionary = max(_SMALLEST_DICTIONARY, 1 << (size - 1).bit_length() if size else 0)
    lzma2: dict[str, Any] = {
        "id": lzma.FILTER_LZMA2,
        "preset": level,
        "dict_size": min(dictionary, _preset_dictionary(level)),
    }
    filters = [{"id": lzma.FILTER_X86}, lzma2] if kind is Kind.X86 else [lzma2]
    return lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters)


def _preset_dictionary(level: int) -> int:
    """Bytes; the table of presets in xz(1)."""
    return 1 << (18, 20, 21, 22, 22, 23, 23, 24, 25, 26)[level]
