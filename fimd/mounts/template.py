"""The template: a warm process that forks one worker for each embedded filesystem.

pyfuse3 serves one filesystem per process and takes a tenth of a second to import, so the daemon
starts one interpreter, lets it import everything, and has it fork. It is told what workers there
are by the names of their modules, each with a function

    async def serve(arguments: dict[str, Any], files: list[int], on_ready: Callable[[], None])

which returns when its filesystem is unmounted. A request is one message on a socket: JSON, with
the worker's status pipe, its output and its files as ancillary data; the answer is the worker's PID
and pidfd.
The template leaves when the daemon closes the socket. Its workers stay.
"""

import array
import asyncio
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fimd.base import logs

MAX_REQUEST: Final = 64 << 10
MAX_FILES: Final = 200
"""Descriptors that a worker may be given; the kernel sends at most 253 at once (unix(7))."""
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
    workers: dict[str, Serve] = {name: importlib.import_module(name).serve for name in modules}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's affair
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the daemon has the pidfds
    asyncio.run(asyncio.sleep(0))  # what this is the first time to touch, all workers share
    gc.collect()
    gc.freeze()  # a collection in a worker must not copy the pages that it shares
    while True:
        message, files, _, _ = socket.recv_fds(control, MAX_REQUEST, _OWN_FILES + MAX_FILES)
        if not message:
            return
        request = json.loads(message)
        if request["log"] != logged:  # here and not in each worker, which would copy the pages
            logged = request["log"]
            logs.setup(**logged, descriptor=messages)
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_worker(workers[request["worker"]], request, files)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [pidfd])
        for descriptor in [pidfd, *files]:
            os.close(descriptor)


def _become_worker(serve: Serve, request: dict[str, Any], files: list[int]) -> None:
    """Run one filesystem to its end and leave."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # fusermount3 is waited for
        with open("/proc/self/comm", "w") as comm:
            comm.write(request["name"])
        report, output, *files = files
        for stream in (1, 2):  # what libfuse and a dying interpreter say
            os.dup2(output, stream)
        os.close(output)
        logs.add_to_all(request["fields"])
        status = _serve(serve, request["arguments"], files, report)
    except BaseException:
        logging.getLogger(__name__).exception("%s failed", request["name"])
    finally:
        os._exit(status)


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


def request_bytes(
    worker: str,
    name: str,
    arguments: dict[str, Any],
    log: Mapping[str, Any],
    fields: Mapping[str, str],
) -> bytes:
    """Encode one request; `name` becomes the worker's name in ps (15 bytes).

    `log` is for `fimd.base.logs.setup`, `fields` is for each of the worker's messages.
    """
    request = {
        "worker": worker,
        "name": name,
        "arguments": arguments,
        "log": dict(log),
        "fields": dict(fields),
    }
    return json.dumps(request).encode()


def receive_answer(control: socket.socket) -> tuple[int, int]:
    """Read one answer: the worker's PID and its pidfd. Raises EOFError when the template left."""
    message, ancillary, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    if not message or not ancillary:
        raise EOFError
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2][: descriptors.itemsize])
    return json.loads(message)["pid"], descriptors[0]


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", format="%(name)s: %(message)s")
    main(sys.argv[1:])
