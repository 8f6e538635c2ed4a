"""System calls of Linux that Python's os module has not got."""

import ctypes
import errno
import mmap
import os

AT_EMPTY_PATH = 0x1000
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MNT_DETACH = 2
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
UMOUNT_NOFOLLOW = 8
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MAX_HANDLE_BYTES = 128
_OPENAT2 = 437
_MOUNT_SETATTR = 442
"""Both are the same on every architecture."""
_RESOLVE_NO_XDEV = 0x01
_NO_OPENAT2 = (errno.ENOSYS, errno.EPERM)
"""What kernels before 5.6 say, and filters that don't know the call."""
_PR_SET_DUMPABLE = 4

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


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))


def set_namespace(descriptor: int, kind: int) -> None:
    """Join a namespace as setns(2) does, which os has from Python 3.12 on; raises OSError."""
    _check(_libc.setns(descriptor, kind))


def mount(source: str, target: str, filesystem: str, flags: int, options: str) -> None:
    """Mount a filesystem, as the system call of that name. Raises OSError.

    `options` are the filesystem's, at most one page.
    """
    words = [os.fsencode(word) for word in (source, target, filesystem)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)))


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("cleared", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def restrict_mounts(path: str, attributes: int) -> None:
    """Set attributes of a mount and of all that is mounted below it; raises OSError.

    They are MOUNT_ATTR_RDONLY and others of mount_setattr(2), which Linux has since 5.12.
    """
    wanted = _MountAttributes(attributes)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    arguments = (_AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, ctypes.byref(wanted), size)
    _check(_libc.syscall(_MOUNT_SETATTR, *arguments))


def unmount(target: str, flags: int) -> None:
    """Take a mount away; raises OSError. See umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags))


def sync_filesystem(descriptor: int) -> None:
    """Have all that was written to an open file's file system be on the disk; raises OSError.

    See syncfs(2).
    """
    _check(_libc.syncfs(descriptor))


def set_dumpable() -> None:
    """Have a process's files in /proc belong to its user again, after it has changed what it is.

    See PR_SET_DUMPABLE in prctl(2).
    """
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


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
    else:
        names = (source_directory, source, target_directory, target)
        _check(_libc.renameat2(*names, ctypes.c_uint(flags)))


_own_descriptors: dict[int, int] = {}
"""By PID, since a fork has others than its parent: /proc/self/fd."""


def keep_own_descriptors() -> int:
    """Keep the way to this process's descriptors open, for a process that will lose its /proc."""
    own = os.getpid()
    if own not in _own_descriptors:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        _own_descriptors[own] = os.open("/proc/self/fd", flags)
    return _own_descriptors[own]


def link_descriptor(descriptor: int, directory: int, name: str) -> None:
    """Give an open file, which may have no name (O_TMPFILE), a name in an open directory."""
    # with a directory's descriptor Python follows the link, see linkat(2)
    os.link(str(descriptor), name, src_dir_fd=keep_own_descriptors(), dst_dir_fd=directory)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_without_mounts(directory: int, name: bytes, flags: int) -> int:
    """Open a name in an open directory, unless something is mounted there (EXDEV).

    See openat2(2). Where there is no such call, another file system is refused, and a part of the
    same one that is mounted there is not.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_XDEV)
    call = (ctypes.c_long(_OPENAT2), ctypes.c_int(directory), name)
    descriptor = _libc.syscall(*call, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    if descriptor >= 0:
        return int(descriptor)
    number = ctypes.get_errno()
    if number not in _NO_OPENAT2:
        raise OSError(number, os.strerror(number), os.fsdecode(name))
    descriptor = os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)
    if os.fstat(descriptor).st_dev != os.fstat(directory).st_dev:
        os.close(descriptor)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(name))
    return descriptor


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
