"""System calls of Linux that Python's os module has not got."""

import ctypes
import errno
import mmap
import os

AT_EMPTY_PATH = 0x1000
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
_MAX_HANDLE_BYTES = 128

_PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    *(ctypes.c_int,) * 3,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_MAP_FAILED = ctypes.c_void_p(-1).value


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("handle", ctypes.c_ubyte * _MAX_HANDLE_BYTES),
    )


def file_handle(descriptor: int) -> bytes | None:
    """What the kernel tells an open file's inode from all others of its filesystem by.

    Unlike st_ino it is unique on FUSE too (node number and generation). It holds while somebody
    has the file open. None where the filesystem has no handles. See name_to_handle_at(2).
    """
    result = _FileHandle(handle_bytes=_MAX_HANDLE_BYTES)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(
        descriptor, b"", ctypes.byref(result), ctypes.byref(mount), AT_EMPTY_PATH
    ):
        return None
    return bytes(result)[: _FileHandle.handle.offset + result.handle_bytes]


def rename(
    source: bytes, target: bytes, source_directory: int, target_directory: int, flags: int
) -> None:
    """renameat2(2); raises OSError."""
    if flags == 0:
        os.rename(source, target, src_dir_fd=source_directory, dst_dir_fd=target_directory)
    elif _libc.renameat2(source_directory, source, target_directory, target, ctypes.c_uint(flags)):
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))


def is_in_memory(descriptor: int, start: int, end: int) -> bool:
    """Whether a file's bytes from `start` to `end` can be read without waiting for anything.

    What preadv2's RWF_NOWAIT would find out by itself, if FUSE had it. See mincore(2); the kernel
    says yes, whatever is the case, for files that are another user's and may not be written.
    """
    start -= start % _PAGE
    length = end - start
    if length <= 0:
        return True
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
    if address == _MAP_FAILED:
        return False
    pages = -(-length // _PAGE)
    resident = ctypes.create_string_buffer(pages)
    answered = _libc.mincore(address, length, resident) == 0
    _libc.munmap(address, length)
    return answered and all(byte & 1 for byte in resident.raw)
