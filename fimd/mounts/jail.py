"""A process that can reach one directory and nothing else: for work on what programs have written.

Whatever an upper or a data directory holds, and whoever exchanges it meanwhile, no path in the jail
leads out of it. What the work needs from outside is opened before and kept as descriptors; modules
are imported before, too. The process never leaves the jail: it is one of its own, or a fork.

    python -m fimd.mounts.jail FUNCTION    calls it with arguments from standard input, as JSON
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from fimd.base.errors import FimError, UnsupportedError, named
from fimd.base.system_calls import keep_own_descriptors

_CLONE_NEWUSER: Final = 0x10000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x20080522

# Numbers of linux/capability.h.
_KEPT: Final = (
    *(0, 1, 2, 3, 4),  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID: files of all owners
    27,  # MKNOD: deletions as devices 0:0, before Linux 5.8
    31,  # SETFCAP: attributes of files
    21,  # SYS_ADMIN: the attributes called trusted, which overlays of the machine's root write
)

Caller = Callable[[str, dict[str, Any]], Any]
"""Calls a function, named `module:name`, in a process of its own; see fimd.mounts.template."""

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
    os.umask(0o022)
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


def call_apart(function: str, arguments: dict[str, Any]) -> Any:
    """Call a function in a process of its own, which may imprison itself; return what it returns.

    `function` is `module:name`. What it takes and returns is what JSON can hold. Blocks: for a
    thread of the daemon, which has the template fork, or for a program of a single thread, which
    forks itself. Raises the FimError that the function raises.
    """
    return _caller.get()(function, arguments)


def use(caller: Caller) -> None:
    """Have this context, and the threads and tasks that come of it, call by another process."""
    _caller.set(caller)


def joining(join: Sequence[str]) -> Caller:
    """Return what calls by a program that joins a namespace; `join` are the words before it."""

    def call(function: str, arguments: dict[str, Any]) -> Any:
        words = [*join, sys.executable, "-P", "-m", __name__, function]
        given = json.dumps(arguments).encode()
        done = subprocess.run(words, input=given, stdout=subprocess.PIPE, check=False)
        return _result(function, done.stdout)

    return call


def main() -> None:
    """Call the function that is the only word, with arguments from standard input."""
    _, function = sys.argv
    text = answer(function, json.load(sys.stdin.buffer))
    sys.stdout.buffer.write(text)


def answer_of_fork(function: str, arguments: dict[str, Any], files: Sequence[int] = ()) -> bytes:
    """Return `answer` of a fork of this process, of a single thread; it ends with this one.

    That is nothing where it is killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.close(reader)
            with open(writer, "wb") as file:
                file.write(answer(function, arguments, files))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def answer(function: str, arguments: dict[str, Any], files: Sequence[int] = ()) -> bytes:
    """Call a function, and return as JSON what it returns, or which FimError it raises."""
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    try:
        said = {"result": called(arguments, list(files))}
    except (FimError, OSError) as error:
        kind = error.name if isinstance(error, FimError) else FimError.name
        said = {"error": [kind, str(error)]}
    return json.dumps(said).encode()


def _result(function: str, text: bytes) -> Any:
    if not text:
        raise FimError(f"the process of {function} ended before it was done: try again")
    answer = json.loads(text)
    if "error" in answer:
        raise named(*answer["error"])
    return answer["result"]


def _call_in_fork(function: str, arguments: dict[str, Any]) -> Any:
    return _result(function, answer_of_fork(function, arguments))


_caller: Final[ContextVar[Caller]] = ContextVar("caller", default=_call_in_fork)


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


if __name__ == "__main__":
    main()
