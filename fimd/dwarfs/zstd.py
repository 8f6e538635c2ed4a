"""ZSTD of large blocks by the system's libzstd, straight to where their content stays.

The Python package decompresses either a whole frame or, in steps, by a buffer of its own that it
copies from. The library can do both at once, and so what is there of a block can be used while the
rest is decompressed. Source: zstd.h of facebook/zstd, 1.4.7 and later.
"""

import contextlib
import ctypes
import functools
import mmap
from collections.abc import Iterator
from typing import Any, Final

from fimd.dwarfs.errors import DamagedError

_LIBRARY: Final = "libzstd.so.1"
_FIRST_STEP: Final = 128 << 10  # bytes of a frame, each step being twice the last one's
_LARGEST_STEP: Final = 1 << 20
_WINDOW_LOG_MAX: Final = 100  # ZSTD_d_windowLogMax
_LARGEST_WINDOW_LOG: Final = 31 if ctypes.sizeof(ctypes.c_void_p) == 8 else 30
_STABLE_OUTPUT: Final = 1001  # ZSTD_d_stableOutBuffer


class _Place(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("done", ctypes.c_size_t))


class _BufferInfo(ctypes.Structure):
    """Py_buffer, part of Python's stable interface."""

    _fields_ = (
        ("at", ctypes.c_void_p),
        ("object", ctypes.py_object),
        ("size", ctypes.c_ssize_t),
        ("rest", ctypes.c_void_p * 8),
    )


def is_available() -> bool:
    """Whether the library is installed and knows what is needed here."""
    return _library() is not None


def decompress(frame: bytes | memoryview, memory: mmap.mmap) -> Iterator[int]:
    """Fill `memory` with the content of a frame of just its size; tells how much there is so far.

    Other threads run meanwhile. Raises DamagedError.
    """
    library = _library()
    with _address(frame) as start, _decoder(library) as decoder:
        output = _Place(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory), 0)
        given = _Place(start, 0, 0)
        left = 1
        step = _FIRST_STEP
        while left:
            before = given.done, output.done
            given.size = min(len(frame), given.done + step)
            step = min(2 * step, _LARGEST_STEP)
            left = library.ZSTD_decompressStream(decoder, ctypes.byref(output), ctypes.byref(given))
            if library.ZSTD_isError(left):
                reason = library.ZSTD_getErrorName(left).decode("ascii", "replace")
                raise DamagedError(f"ZSTD decompression failed: {reason}")
            if left and before == (given.done, output.done):
                raise DamagedError(f"ZSTD: the frame ends after {output.done} bytes")
            if output.done < len(memory):
                yield output.done
    if output.done != len(memory):
        raise DamagedError(f"ZSTD: {output.done} bytes came out instead of {len(memory)}")
    yield output.done


@functools.cache
def _library() -> Any:
    """The shared library with its functions' types set, None where it cannot be used."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        library.ZSTD_createDCtx.restype = ctypes.c_void_p
        library.ZSTD_createDCtx.argtypes = []
        library.ZSTD_freeDCtx.argtypes = [ctypes.c_void_p]
        library.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
        library.ZSTD_DCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p] * 3
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        library.ZSTD_getErrorName.restype = ctypes.c_char_p
        library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
        with _decoder(library):
            return library
    except (OSError, AttributeError, DamagedError):
        return None


@contextlib.contextmanager
def _decoder(library: Any) -> Iterator[int]:
    """A decoder that writes to one buffer from its beginning to its end."""
    decoder = library.ZSTD_createDCtx()
    if not decoder:
        raise MemoryError
    try:
        for parameter, value in ((_STABLE_OUTPUT, 1), (_WINDOW_LOG_MAX, _LARGEST_WINDOW_LOG)):
            if library.ZSTD_isError(library.ZSTD_DCtx_setParameter(decoder, parameter, value)):
                raise DamagedError(f"{_LIBRARY} does not know parameter {parameter}")
        yield decoder
    finally:
        library.ZSTD_freeDCtx(decoder)


@contextlib.contextmanager
def _address(data: bytes | memoryview) -> Iterator[int]:
    """Where read-only data is, which has no way to be asked but this one."""
    view = _BufferInfo()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0)
    try:
        yield view.at or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
