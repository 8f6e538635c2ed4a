"""Two system calls of Linux that Python's os module has not got."""

import ctypes
import errno
import os

AT_EMPTY_PATH = 0x1000
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
_MAX_HANDLE_BYTES = 128

_libc = ctypes.CDLL(None, use_errno=True)


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
