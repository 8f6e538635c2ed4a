"""A process that can reach one directory and nothing else: for work on what programs have written.

Whatever an upper or a data directory holds, and whoever exchanges it meanwhile, no path in the jail
leads out of it. What the work needs from outside is opened before and kept as descriptors; modules
are imported before, too. The process never leaves the jail: it is one of its own, or a fork.
"""

import ctypes
import os
import resource
import signal
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.base.system_calls import keep_own_descriptors

_CLONE_NEWUSER: Final = 0x10000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x20080522

# Numbers of linux/capability.h.
_KEPT: Final = (
    *(0, 1, 2, 3, 4),  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID: files of all owners
    27,  # MKNOD: deletions as devices 0:0, before Linux 5.8
    31,  # SETFCAP: attributes of files
    21,  # SYS_ADMIN: the attributes called trusted, which overlays of the machine's root write
)

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def imprison(directory: int, *, memory: int | None = None, seconds: float | None = None) -> None:
    """Make an open directory the root directory of this process, for good.

    `memory` is how many bytes the process may have of its own, by default as many as the machine;
    `seconds` is after how long it is killed. Where this process is not root of a user namespace it
    becomes that of a new one, for which it must have a single thread. Raises UnsupportedError where
    that is forbidden.
    """
    keep_own_descriptors()
    os.fchdir(directory)
    try:
        os.chroot(".")
    except PermissionError:
        _become_root()
        os.chroot(".")
    os.chdir("/")
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    limit = memory if memory is not None else machine_memory()
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if seconds is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def machine_memory() -> int:
    """Return how many bytes of memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _become_root() -> None:
    """Become root of a user namespace of this process's own."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER):
        number = ctypes.get_errno()
        raise UnsupportedError(
            f"a user namespace can't be made ({os.strerror(number)}), and without one nothing that "
            "programs have written is touched: allow them (see 'fimctl doctor')"
        )
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"0 {gid} 1"),
        ("uid_map", f"0 {uid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _drop_capabilities() -> None:
    """Keep those that reading and writing other owners' files takes; see capset(2)."""
    header = _Header(_CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    if _libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capget")
    mask = sum(1 << number for number in _KEPT)
    for index, held in enumerate(sets):
        kept = mask >> 32 * index & 0xFFFFFFFF
        held.effective = held.permitted = held.permitted & kept
        held.inheritable = 0
    if _libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")
