"""Brotli by the system's libbrotlidec, which knows large windows, or by the Python package.

mkdwarfs can be asked for windows of up to 2^30 bytes, an extension that the Python package's
decoder does not switch on. Source: brotli/decode.h of google/brotli.
"""

import ctypes
import functools
from typing import Any, Final

from fimd.dwarfs.errors import CodecMissingError, DamagedError

_LARGE_WINDOW: Final = 1  # BROTLI_DECODER_PARAM_LARGE_WINDOW
_SUCCESS: Final = 1  # BROTLI_DECODER_RESULT_SUCCESS
_LIBRARY: Final = "libbrotlidec.so.1"


def decompress(stream: bytes, size: int) -> bytes:
    """The `size` bytes that a raw Brotli stream holds. Raises DamagedError, CodecMissingError."""
    library = _library()
    if library is not None:
        return _by_library(library, stream, size)
    return _by_package(stream, size)


def is_available() -> bool:
    """Whether the system's library is installed."""
    return _library() is not None


@functools.cache
def _library() -> Any:
    """The shared library with its functions' types set, None where it is not installed."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    library.BrotliDecoderCreateInstance.restype = ctypes.c_void_p
    library.BrotliDecoderCreateInstance.argtypes = [ctypes.c_void_p] * 3
    library.BrotliDecoderDestroyInstance.restype = None
    library.BrotliDecoderDestroyInstance.argtypes = [ctypes.c_void_p]
    library.BrotliDecoderSetParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.BrotliDecoderDecompressStream.argtypes = [ctypes.c_void_p] * 6
    return library


def _by_library(library: Any, stream: bytes, size: int) -> bytes:
    decoder = library.BrotliDecoderCreateInstance(None, None, None)
    if not decoder:
        raise MemoryError
    try:
        library.BrotliDecoderSetParameter(decoder, _LARGE_WINDOW, 1)
        output = ctypes.create_string_buffer(max(size, 1))
        left_in = ctypes.c_size_t(len(stream))
        left_out = ctypes.c_size_t(size)
        next_in = ctypes.cast(ctypes.c_char_p(stream), ctypes.c_void_p)
        next_out = ctypes.cast(output, ctypes.c_void_p)
        result = library.BrotliDecoderDecompressStream(
            decoder,
            ctypes.byref(left_in),
            ctypes.byref(next_in),
            ctypes.byref(left_out),
            ctypes.byref(next_out),
            None,
        )
    finally:
        library.BrotliDecoderDestroyInstance(decoder)
    if result != _SUCCESS or left_out.value:
        raise DamagedError("Brotli decompression failed")
    return output.raw[:size]


def _by_package(stream: bytes, size: int) -> bytes:
    import brotli  # noqa: PLC0415

    decoder = brotli.Decompressor()
    parts: list[bytes] = []
    produced = 0
    try:
        # what one piece of input can make is bounded, so the output never runs far past its size
        for start in range(0, len(stream), 4096):
            parts.append(decoder.process(stream[start : start + 4096]))
            produced += len(parts[-1])
            if produced > size:
                raise DamagedError(f"Brotli: more than {size} bytes came out")
    except brotli.error as error:
        raise CodecMissingError(
            f"the Python package brotli cannot decode this block, which may have a large window:"
            f" install the system library {_LIBRARY}"
        ) from error
    if not decoder.is_finished() or produced != size:
        raise DamagedError(f"Brotli: {produced} bytes came out instead of {size}")
    return b"".join(parts)
