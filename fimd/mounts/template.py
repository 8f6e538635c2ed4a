"""The template: a warm process in the user's namespace, which does there what the daemon asks for.

pyfuse3 serves one filesystem per process and takes a tenth of a second to import, so the daemon
starts one interpreter, the origin (fimd.mounts.origin), lets it import everything, and has it fork.
A template is a fork of it that joins the namespace. A request is one message on a socket: JSON,
with files as ancillary data. It asks for one of these:

- `fork`: fork a process that goes on as this one does, with a socket of its own.
- `join`: enter namespaces, once.
- `serve`: fork a worker that serves a filesystem, which is a function in a module

      async def serve(arguments: dict[str, Any], files: list[int], on_ready: Callable[[], None])

  that returns when its filesystem is unmounted.
- `call`: fork a process that takes steps, and says what each of them returns (fimd.mounts.steps).
- `spawn`: start a program.
- `unmount`: detach a mount.

The answer is JSON, with the pidfd of what was started. The template leaves when the daemon closes
the socket. What it started stays.

Forking is most of what a short call takes, with the pages that a new process copies. So once it is
in the namespace the template keeps one process that waits for the next request: the last one, where
that says that it can do more, or one that is forked ahead, once the last one has had time to do its
work: whoever waits for that is not to wait for a processor.
"""

import array
import asyncio
import errno
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NoReturn

from fimd.base import logs
from fimd.base.system_calls import (
    MNT_DETACH,
    MS_BIND,
    UMOUNT_NOFOLLOW,
    mount,
    set_dumpable,
    set_namespace,
    unmount,
)
from fimd.mounts.steps import go_by, leave_it_as_it_was, take, wait_until_read

MAX_REQUEST: Final = 128 << 10
MAX_FILES: Final = 200
"""Descriptors that a worker may be given; the kernel sends at most 253 at once (unix(7))."""
OWN_FILES: Final = "/proc/self/fd"
"""A directory that the root directory of a program has to have for it."""
_CALM: Final = 0.005
"""Seconds without a request, after which another process is forked ahead."""
_FREE: Final = b"free"
"""What a process says that waits for another request."""
_OWN_FILES: Final = 2
"""A worker's status pipe and its output."""

Serve = Callable[[dict[str, Any], list[int], Callable[[], None]], Coroutine[Any, Any, None]]


def main(modules: list[str]) -> None:
    """Serve requests on file descriptor 0 until the other end closes it."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    messages = os.dup(2)  # a worker's own standard error is its output
    logged: dict[str, Any] | None = None
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's affair
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the daemon has the pidfds
    asyncio.run(asyncio.sleep(0))  # what this is the first time to touch, all workers share
    gc.collect()
    gc.freeze()  # a collection in a worker must not copy the pages that it shares
    go_by("origin")
    spare: _Spare | None = None
    used: _Spare | None = None
    joined = False
    while True:
        message, files = _receive(control)
        if not message:
            return
        request = json.loads(message)
        if request.get("log", logged) != logged:  # here, not in each worker, which would copy pages
            logged = request["log"]
            assert logged is not None
            logs.setup(**logged, descriptor=messages)
            spare = used = None  # they would log as before
        answer: dict[str, Any] = {}
        pidfd = -1
        try:
            if request["do"] == "join":
                _join(request["kinds"], files)
                joined = True
            elif request["do"] == "fork":
                answer["pid"] = os.fork()
                if answer["pid"] == 0:
                    os.setsid()
                    control.close()
                    go_by("template")
                    [descriptor] = files
                    control = socket.socket(fileno=descriptor)
                    continue
                pidfd = os.pidfd_open(answer["pid"])
            elif request["do"] == "unmount":
                unmount(request["mount_point"], MNT_DETACH | UMOUNT_NOFOLLOW)
            else:
                if spare is None or not spare.hand(message, files):
                    spare = _Spare(control, files, used)
                    if not spare.hand(message, files):
                        raise BrokenPipeError(errno.EPIPE, "the process died at once")
                answer["pid"], pidfd = spare.pid, spare.new_pidfd()
                spare, used = None, spare
        except OSError as error:
            answer["errno"] = error.errno
        socket.send_fds(control, [json.dumps(answer).encode()], [pidfd] if pidfd >= 0 else [])
        for descriptor in [pidfd, *files]:
            if descriptor >= 0:
                os.close(descriptor)
        if joined and spare is None:
            spare, used = _next_spare(control, used)


def _next_spare(
    control: socket.socket, used: "_Spare | None"
) -> "tuple[_Spare | None, _Spare | None]":
    """Have a process for the next request, unless that comes before: the used one, or another.

    Returns it, and else the used one, where that is still at work.
    """
    while used is not None:
        ready, _, _ = select.select([control.fileno(), used.fileno()], [], [])
        if used.fileno() not in ready:
            return None, used
        if used.is_free():
            return used, None
        used = None
    return None if select.select([control], [], [], _CALM)[0] else _Spare(control), None


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    message, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, _OWN_FILES + MAX_FILES)
    return message, files


class _Spare:
    """A process that waits for a request, and ends with whoever could make it.

    After some it says that it waits for another one.
    """

    def __init__(
        self, control: socket.socket, files: Sequence[int] = (), other: "_Spare | None" = None
    ) -> None:
        """Fork it; it is to have none of the template's `files` but those that it is handed.

        Nor is it to keep the template's end of the `other` one's socket open.
        """
        self._pidfd = -1
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            control.close()
            self._ours.close()
            if other is not None:
                other.close()
            for descriptor in files:
                os.close(descriptor)
            os.setsid()
            _wait_for_work(theirs)
        theirs.close()
        self._pidfd = os.pidfd_open(self.pid)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Ask nothing more of it: it ends once it has done what it does."""
        self._ours.close()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def fileno(self) -> int:
        """Return what can be read from once it is free, or has ended."""
        return self._ours.fileno()

    def hand(self, message: bytes, files: list[int]) -> bool:
        """Give it the request; tell whether it was there to take it."""
        try:
            socket.send_fds(self._ours, [message], files)
        except ConnectionError:
            return False
        return True

    def is_free(self) -> bool:
        """Tell whether it waits for another request, once it can be read from."""
        try:
            return bool(self._ours.recv(len(_FREE)))
        except ConnectionError:
            return False

    def new_pidfd(self) -> int:
        """Return another pidfd of it, which is the caller's."""
        return os.dup(self._pidfd)


def _wait_for_work(template: socket.socket) -> NoReturn:
    """Do in this process what is asked for, for as long as it can do more, and leave."""
    while True:
        go_by("spare")
        message, files = _receive(template)
        if not message:
            os._exit(0)
        _become(json.loads(message), files, template)
        os.chdir("/")
        try:
            template.send(_FREE)
        except ConnectionError:
            os._exit(0)


def _join(kinds: list[int], files: list[int]) -> None:
    for kind, descriptor in zip(kinds, files, strict=True):
        set_namespace(descriptor, kind)
    set_dumpable()  # the next daemon has to find the namespace by any process in it
    os.chdir("/")


def _become(request: dict[str, Any], files: list[int], template: socket.socket) -> None:
    """Do in a process of its own what is asked for; return where it can do more, or else leave."""
    status = 1
    goes_on = False
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who starts programs waits for them
        report, output, *files = files
        for stream in (1, 2):  # what libfuse, a program, and a dying interpreter say
            os.dup2(output, stream)
        os.close(output)
        goes_on = request["do"] == "call" and leave_it_as_it_was(request["steps"])
        if not goes_on:
            template.close()
        if request["do"] == "spawn":
            os.close(report)
            _spawn(request["argv"], request["directory"], request["root"])
        go_by(request["name"])
        logs.add_to_all(request["fields"])
        if request["do"] == "call":
            goes_on = take(request["steps"], files, report) and goes_on
            status = 0
            if goes_on:  # not before: who gives up waiting for it ends this process
                wait_until_read(report)
        else:
            serve: Serve = importlib.import_module(request["worker"]).serve
            status = _serve(serve, request["arguments"], files, report)
    except BaseException:
        goes_on = False
        logging.getLogger(__name__).exception("%s failed", request["name"])
    finally:
        if not goes_on:
            os._exit(status)


def _spawn(argv: list[str], directory: str, root: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if root:  # which has what the program needs, but for its own descriptors
        mount(OWN_FILES, root + OWN_FILES, "", MS_BIND, "")
        os.chroot(root)
    os.chdir(directory)
    os.execve(argv[0], argv, os.environ)  # noqa: S606 - an argument list


def _serve(serve: Serve, arguments: dict[str, Any], files: list[int], report: int) -> int:
    """Serve, and say on `report` whether it began well: "ready", or why not."""
    ready = False

    def on_ready() -> None:
        nonlocal ready
        ready = True
        os.write(report, b"ready")
        os.close(report)

    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(arguments, files, on_ready)

    try:
        asyncio.run(body())
    except asyncio.CancelledError:
        return 0
    except Exception as error:
        if ready:
            raise
        os.write(report, (str(error) or type(error).__name__).encode(errors="replace")[:4096])
        return 1
    return 0


def request_bytes(what: str, log: Mapping[str, Any], **facts: Any) -> bytes:
    """Encode one request; `log` is what `fimd.base.logs.setup` is called with."""
    return json.dumps({"do": what, "log": dict(log), **facts}).encode()


def receive_answer(control: socket.socket) -> tuple[dict[str, Any], int | None]:
    """Read one answer, and the pidfd that came with it. Raises EOFError when the template left."""
    message, ancillary, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    if not message:
        raise EOFError
    descriptors = array.array("i")
    if ancillary:
        descriptors.frombytes(ancillary[0][2][: descriptors.itemsize])
    return json.loads(message), descriptors[0] if descriptors else None


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", format="%(name)s: %(message)s")
    main(sys.argv[1:])
