"""Run a command for which the kernel refuses to make user namespaces: a seccomp filter.

A plain user's command gains nothing by set-user-ID programs then; root's may become a user first.
After --unshare only unshare(2) is refused, as where a profile allows them to bubblewrap alone;
after --filters nothing but further filters is, as where the kernel has none.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
RETURN_ALLOW, RETURN_ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AND_SET, RETURN = 0x20, 0x15, 0x45, 0x06  # seccomp(2), in classic BPF
NUMBER, FIRST_ARGUMENT = 0, 16

UNSHARE, CLONE, CLONE3, SECCOMP = {
    "x86_64": (272, 56, 435, 317),
    "aarch64": (97, 220, 435, 277),
}[platform.machine()]

PROGRAM = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 5, 0, CLONE3),  # its flags are in memory: without it, libc uses clone
    (EQUAL, 1, 0, UNSHARE),
    (EQUAL, 0, 2, CLONE),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (AND_SET, 2, 0, CLONE_NEWUSER),
    (RETURN, 0, 0, RETURN_ALLOW),
    (RETURN, 0, 0, RETURN_ERRNO | errno.ENOSYS),
    (RETURN, 0, 0, RETURN_ERRNO | errno.EPERM),
]

UNSHARE_ONLY = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 2, UNSHARE),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (AND_SET, 1, 0, CLONE_NEWUSER),
    (RETURN, 0, 0, RETURN_ALLOW),
    (RETURN, 0, 0, RETURN_ERRNO | errno.EPERM),
]

FILTERS = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 1, SECCOMP),
    (RETURN, 0, 0, RETURN_ERRNO | errno.ENOSYS),
    (RETURN, 0, 0, RETURN_ALLOW),
]
OPTIONS = {"--unshare": UNSHARE_ONLY, "--filters": FILTERS}


def main() -> None:
    """Install the filter, which every process from here on has, and become the command."""
    steps, words = PROGRAM, sys.argv[1:]
    if words[0] in OPTIONS:
        steps, words = OPTIONS[words[0]], words[1:]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() != 0:  # who has to renounce them, see seccomp(2)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(words[0], words)


main()
