"""Entering a running instance: its namespaces, its root, its rights; then becoming a program there.

The instance's process is bubblewrap outside of the sandbox, and its child is in it. A sandbox of a
plain user lies in a user namespace that owns the others, and its processes may be in one more
below that: both have to be entered, the owner first (namespaces(7), user_namespaces(7)).

From then on paths are the instance's, and a module would be imported from there: nothing may be.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import time
from collections.abc import Sequence
from typing import Final

from fimctl import messages
from fimctl.errors import ClientError

_NS_GET_USERNS: Final = 0xB701  # ioctl_ns(2)
_CLONE_NEWUSER: Final = 0x10000000
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES: Final = 64
_KINDS: Final = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
_SECONDS: Final = 5.0
_HOST_PATH: Final = "/sbin:/usr/sbin:/usr/local/sbin:/bin:/usr/bin:/usr/local/bin"

_libc = ctypes.CDLL(None, use_errno=True)


def enter(pid: int, words: Sequence[str]) -> int:
    """Become a program in the instance of a process; returns its exit code where that can't be.

    The environment, the streams and, where it is there inside, the working directory stay.
    """
    child = _sandboxed(pid)
    where = os.getcwd()
    environment = _environment(child)
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
        program = os.fork()
        if program:
            return _wait(program)
        os._exit(_become(words, environment))
    return _become(words, environment)


def _sandboxed(pid: int) -> int:
    """Return the process inside the sandbox, which is there soon after the start."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
                found = children.read().split()
            # until bubblewrap has changed its root, its child still sees the host's
            if found and not os.path.samestat(os.stat(f"/proc/{found[0]}/root"), os.stat("/")):
                return int(found[0])
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno not in {errno.ESRCH, errno.EACCES, errno.EPERM}:
                raise
        time.sleep(0.01)
    raise ClientError(f"the instance {pid} has ended, or never came up")


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
    bounding = _bounding_set(child)
    opened = {kind: os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY) for kind in (*_KINDS, "user")}
    root = os.open(f"/proc/{child}/root", os.O_PATH | os.O_DIRECTORY)
    owner = fcntl.ioctl(opened["mnt"], _NS_GET_USERNS)
    try:
        foreign = [kind for kind in _KINDS if not _is_own(opened[kind], kind)]
        if not _is_own(owner, "user"):
            _set_namespace(owner, _CLONE_NEWUSER)
        for kind in foreign:
            _set_namespace(opened[kind])
        os.fchdir(root)
        os.chroot(".")
        if os.fstat(opened["user"]).st_ino != os.fstat(owner).st_ino:
            _set_namespace(opened["user"], _CLONE_NEWUSER)
        _drop_rights(bounding)
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


def _bounding_set(child: int) -> int:
    with open(f"/proc/{child}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16)
    return 0


def _drop_rights(bounding: int) -> None:
    """Keep no capability that the instance's programs can't have, and no way to gain one."""
    for capability in range(_CAPABILITIES):
        if not bounding >> capability & 1:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _become(words: Sequence[str], environment: dict[str, str]) -> int:
    """Execute the program; returns an exit code where there is none."""
    environment["PWD"] = os.getcwd()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    # os.execvpe would import a module
    places = [""] if "/" in words[0] else environment["PATH"].split(":")
    for place in places:
        with contextlib.suppress(OSError, ValueError):  # the next one may have it
            os.execve(os.path.join(place, words[0]), list(words), environment)  # noqa: S606 - no shell
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
