"""Starting the daemon where nobody listens on its socket, by whatever there is.

That is a session bus that can start it, or systemd's user manager; else this client does, in a
session of its own. However many clients come at once, one starts it and the others wait.
"""

import fcntl
import os
import pwd
import resource
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from fimctl import session_bus
from fimctl.connection import Connection
from fimctl.errors import ClientError
from fimctl.installation import programs
from fimd.base.places import find_global, socket_path

_BUS_NAME: Final = "org.flatimage.Fim1"
_UNIT: Final = "fimd.service"
_SECONDS: Final = 60.0
"""Seconds that the daemon may take: it takes over what an earlier one has left."""
_GLANCE: Final = 0.02
_UNWANTED: Final = ("LD_", "PYTHON", "GLIBC_", "MALLOC_", "FIM_")
"""Beginnings of variables that are meant for the program, and not for what makes its sandbox."""
_LIMITS: Final = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE),
    *(resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_RSS),
)
_WANTED: Final = "FIM_DIR_GLOBAL"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def start() -> tuple[Connection, str]:
    """Return a connection to the daemon, and the bus's address where it leads by one.

    Raises ClientError.
    """
    for address in session_bus.addresses():
        with suppress(OSError, ValueError):
            connection = Connection.to_bus(address)
            if _knows(connection):
                return connection, address
            connection.close()
    with _turn():
        with suppress(OSError):  # another client was faster
            return _connect(), ""
        if not _by_systemd():
            _by_this_client()
        return _wait(), ""


def _knows(bus: Connection) -> bool:
    """Tell whether the daemon is on a bus, or can be started by it."""
    if bus.call_bus("NameHasOwner", "s", (_BUS_NAME,)).body == (True,):
        return True
    [names] = bus.call_bus("ListActivatableNames").body
    return _BUS_NAME in names


def _connect() -> Connection:
    return Connection.to_daemon(socket_path(find_global()))


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other client is starting the daemon. Raises ClientError after a while."""
    from fimd.base.errors import FimError  # noqa: PLC0415
    from fimd.base.paths import RuntimeTree  # noqa: PLC0415 - the daemon is about to need it

    try:
        path = RuntimeTree.open().starting
    except FimError as error:
        raise ClientError(str(error)) from error
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClientError(
                        f"another client has been starting fimd for {_SECONDS:g} s: see "
                        f"'fimctl doctor' and 'fimctl logs'"
                    ) from None
            time.sleep(_GLANCE)
        yield
    finally:
        os.close(descriptor)


def _by_systemd() -> bool:
    """Have this user's systemd start it, where it has a unit for that."""
    if not os.path.exists(os.path.join(session_bus.runtime_directory(), "systemd", "private")):
        return False
    import subprocess  # noqa: PLC0415 - which takes long to import, and few need it here

    environment = {**os.environ, "XDG_RUNTIME_DIR": session_bus.runtime_directory()}
    command = ["systemctl", "--user", "start", _UNIT]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _by_this_client() -> None:
    """Start it, and wait until it answers. Raises ClientError with its own words."""
    command = [str(programs() / "fimd"), "--on-demand"]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _become_daemon(command, reading, writing)
    os.close(writing)
    os.waitpid(child, 0)
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    try:
        if not poll.poll(_SECONDS * 1000):
            raise ClientError(f"fimd was started, and is silent for {_SECONDS:g} s")
        said = _read_all(reading)
    finally:
        os.close(reading)
    if said != b"\0":
        reason = os.fsdecode(said.removesuffix(b"\0")) or "it ended without a word"
        raise ClientError(f"fimd can't start: {reason}")


def _read_all(descriptor: int) -> bytes:
    said = b""
    while not said.endswith(b"\0") and (data := os.read(descriptor, 4096)):
        said += data
    return said


def _become_daemon(command: list[str], reading: int, writing: int) -> NoReturn:
    """Be the daemon, as a child of nobody's, with nothing of the caller's but its variables."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(reading)
        _put_streams_away(writing)
        _raise_limits()
        for number in range(1, signal.NSIG):
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir("/")
        os.umask(0o022)
        os.set_inheritable(writing, True)
        os.execve(command[0], [*command, f"--tell={writing}"], _variables())  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(writing, f"{command[0]} can't be executed: {error.strerror}".encode() + b"\0")
    finally:
        os._exit(125)


def _put_streams_away(kept: int) -> None:
    """Have the standard streams lead nowhere, and close all else that the caller has open."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            with suppress(OSError):  # that of the list itself
                os.close(int(name))


def _raise_limits() -> None:
    """Lift what limits the caller, as far as may be: the daemon serves others too."""
    for number in _LIMITS:
        with suppress(OSError, ValueError):
            _, most = resource.getrlimit(number)
            resource.setrlimit(number, (most, most))


def _variables() -> dict[str, str]:
    """Return the caller's variables without those that are meant for its program."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == _WANTED or not name.startswith(_UNWANTED)
    }
    if not os.access(kept.get("HOME", ""), os.R_OK | os.X_OK):  # as after setpriv(1), or env -i
        with suppress(KeyError):
            kept["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
    kept.setdefault("PATH", _PATH)
    return kept


def _wait() -> Connection:
    """Return a connection to the daemon that has just begun to serve. Raises ClientError."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return _connect()
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClientError(
                    f"fimd was started, but can't be reached ({error}): see 'fimctl logs'"
                ) from error
        time.sleep(_GLANCE)
