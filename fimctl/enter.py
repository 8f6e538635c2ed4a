"""Entering a running instance: its namespaces, its root, its rights; then becoming a program there.

The instance's process waits outside of the sandbox for bubblewrap, whose child is in it. A sandbox
of a plain user lies in a user namespace that owns the others, and its processes may be in one more
below that: both have to be entered, the owner first (namespaces(7), user_namespaces(7)).

A program that enters counts: what it stands on stays until it has ended. Only children of the first
process inside keep that up, which one that comes from outside is not, so it leaves one there that
waits for its end.

From then on paths are the instance's, and a module would be imported from there: nothing may be.
And its programs see this process: by /proc they could open the file that it executes, and write to
it where it is the user's own. So until it is one of them it is nobody's to look at, and what
it executes of the host's is a copy in memory.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter
from pathlib import Path
from typing import Final

from fimctl import messages
from fimctl.errors import ClientError

_NS_GET_USERNS: Final = 0xB701  # ioctl_ns(2)
_CLONE_NEWUSER: Final = 0x10000000
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_MFD_EXEC: Final = 0x10  # memfd_create(2)
_CAPABILITY_VERSION: Final = 0x20080522  # capget(2): sets of 64, as two halves
_CAPABILITIES: Final = 64
_KINDS: Final = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
_SECONDS: Final = 5.0
_HOST_PATH: Final = "/sbin:/usr/sbin:/usr/local/sbin:/bin:/usr/bin:/usr/local/bin"

_ENTRY: Final = Path(__file__).parent.parent / "fimd" / "launch" / "entry"
"""Keeps a program from typing into its user's terminal (fimd/launch/entry.c)."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter(pid: int, words: Sequence[str]) -> int:
    """Become a program in the instance of a process; returns its exit code where that can't be.

    The environment, the streams and, where it is there inside, the working directory stay.
    """
    child = _sandboxed(pid)
    where = os.getcwd()
    environment = _environment(child)
    try:
        entry = _copy_in_memory(_ENTRY)
    except FileNotFoundError:
        entry = -1  # none was compiled for this machine, and the instance has none either
    except OSError as error:
        raise ClientError(f"no program can be copied to memory: {error.strerror}") from error
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        has_own_pids = _join(child)
    except OSError as error:
        raise ClientError(f"the instance {pid} can't be entered: {error.strerror}") from error
    for place in (where, environment.get("HOME", "/"), "/"):
        try:
            os.chdir(place)
            break
        except OSError:
            continue
    if has_own_pids:
        # Only children come to be in another PID namespace.
        try:
            program = os.fork()
        except OSError as error:  # ENOMEM, once the first process of the namespace has ended
            raise ClientError(f"the instance {pid} has ended") from error
        if program:
            return _wait(program)
        _leave_a_child()
        os._exit(_become(words, environment, entry))
    return _become(words, environment, entry)


def _copy_in_memory(path: Path) -> int:
    """Return a copy of a program that nobody can write to. Raises OSError."""
    content = path.read_bytes()
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create(path.name, flags | _MFD_EXEC)
    except OSError:  # which kernels before 6.3 do not know
        copy = os.memfd_create(path.name, flags)
    os.write(copy, content)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return copy


def _sandboxed(pid: int) -> int:
    """Return the program inside the sandbox, which is there soon after the start."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            found = _program(pid)
            if found is not None and os.access(f"/proc/{found}/ns/mnt", os.R_OK):
                return found
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno not in {errno.ESRCH, errno.EACCES, errno.EPERM}:
                raise
        time.sleep(0.01)
    raise ClientError(f"the instance {pid} has ended, or never came up")


def _program(pid: int) -> int | None:
    """Return the program of an instance's process, None where it is not there yet."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        between = 2 if file.read().split(b"\0")[1:2] == [b"monitor"] else 1
    for _ in range(between + 1):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            first = children.read().split()[:1]
        if not first:
            return None
        pid = int(first[0])
    return pid


def _environment(child: int) -> dict[str, str]:
    """Return the caller's variables, with the instance's FIM_ ones and its programs on PATH."""
    with open(f"/proc/{child}/environ", "rb") as file:
        pairs = (word.partition(b"=") for word in file.read().split(b"\0"))
        own = {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
    environment = dict(os.environ)
    environment.update({key: value for key, value in own.items() if key.startswith("FIM_")})
    path = (
        own.get("FIM_DIR_APP_BIN"),
        os.environ.get("PATH"),
        _HOST_PATH,
        own.get("FIM_DIR_APP_SBIN"),
    )
    environment["PATH"] = ":".join(part for part in path if part)
    return environment


def _join(child: int) -> bool:
    """Enter the namespaces and the root of a process; tell whether it has PIDs of its own."""
    rights = _rights(child)
    opened = {kind: os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY) for kind in (*_KINDS, "user")}
    root = os.open(f"/proc/{child}/root", os.O_PATH | os.O_DIRECTORY)
    owner = fcntl.ioctl(opened["mnt"], _NS_GET_USERNS)
    try:
        foreign = [kind for kind in _KINDS if not _is_own(opened[kind], kind)]
        if not _is_own(owner, "user"):
            _set_namespace(owner, _CLONE_NEWUSER)
        for kind in foreign:
            _set_namespace(opened[kind])
        sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
        os.fchdir(root)
        os.chroot(".")
        if os.fstat(opened["user"]).st_ino != os.fstat(owner).st_ino:
            _set_namespace(opened["user"], _CLONE_NEWUSER)
        _take_rights(rights)
        return "pid" in foreign
    finally:
        for descriptor in (*opened.values(), root, owner):
            os.close(descriptor)


def _is_own(descriptor: int, kind: str) -> bool:
    return os.path.samestat(os.fstat(descriptor), os.stat(f"/proc/self/ns/{kind}"))


def _set_namespace(descriptor: int, kind: int = 0) -> None:
    if _libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _rights(child: int) -> dict[str, int]:
    """Return the capability sets of a process by their names in proc(5)."""
    with open(f"/proc/{child}/status", encoding="ascii", errors="replace") as status:
        lines = (line.split() for line in status if line.startswith("Cap"))
        return {name.rstrip(":"): int(value, 16) for name, value in lines}


def _take_rights(rights: dict[str, int]) -> None:
    """Have the capabilities of one of the instance's programs, and no way to gain more."""
    for capability in range(_CAPABILITIES):
        if not rights["CapBnd"] >> capability & 1:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    sets = [rights["CapPrm"], rights["CapPrm"], rights["CapInh"]]
    halves = [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in sets]
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    if _libc.capset(header, struct.pack("6I", *halves)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for capability in range(_CAPABILITIES):
        if rights["CapAmb"] >> capability & 1:
            _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _leave_a_child() -> None:
    """Leave a process to the first one of this namespace that ends when this one does."""
    this = os.pidfd_open(os.getpid())
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        os.close(this)
        return
    if os.fork() == 0:
        os.setsid()  # no key of the terminal is meant for it
        os.dup2(this, 0)
        os.closerange(1, os.sysconf("SC_OPEN_MAX"))  # whoever waits for these streams
        select.select([0], [], [])
    os._exit(0)


def _become(words: Sequence[str], environment: dict[str, str], entry: int) -> int:
    """Execute the program; returns an exit code where there is none."""
    environment["PWD"] = os.getcwd()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    # os.execvpe would import a module
    places = [""] if "/" in words[0] else environment["PATH"].split(":")
    for place in places:
        path = os.path.join(place, words[0])
        with contextlib.suppress(OSError, ValueError):  # the next one may have it
            if entry < 0:
                os.execve(path, list(words), environment)  # noqa: S606 - no shell
            elif os.path.isfile(path) and os.access(path, os.X_OK):
                os.execve(entry, ["entry", "exec", "", path, *words], environment)  # noqa: S606
    messages.error("Could not start PID, program not found?")
    return 1


def _wait(program: int) -> int:
    """Wait for the program, which the terminal's signals reach as well; return its exit code."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(program, received))
    _, status = os.waitpid(program, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
