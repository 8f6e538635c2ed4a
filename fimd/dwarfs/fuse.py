"""One FUSE filesystem served by pyfuse3 on asyncio, with its known traps closed.

pyfuse3 serves one filesystem per process, and importing it is slow (it brings trio), so nothing
imports this module but a process that is going to be a filesystem.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import os
import select
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from fimd.dwarfs import fusermount

try:  # pyfuse3 3.3 and later
    from pyfuse3 import asyncio as pyfuse3_asyncio
except ImportError:  # Debian 12's 3.2 has it as a module of its own
    import pyfuse3_asyncio  # type: ignore[no-redef]

P = ParamSpec("P")
T = TypeVar("T")

# How long the serving thread waits for the next request before it lets the event loop wait, in
# seconds: a busy client sends it within some 20 to 80 µs, and going through the event loop takes
# as long again. Whatever else runs on the loop waits no longer than this.
_NEXT_REQUEST = 100e-6
_REQUESTS_IN_A_ROW = 64  # after so many the event loop has its turn
_SELECT_LIMIT = 1024  # FD_SETSIZE; nothing else waits for microseconds

log = logging.getLogger(__name__)


def guarded(
    handler: Callable[P, Awaitable[T]], expected: tuple[type[Exception], ...] = ()
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Answer EIO, and log why, where a handler fails with anything but a FUSEError.

    Under asyncio pyfuse3 loses such an exception, and the caller in the kernel waits for ever.
    The `expected` ones say for themselves what is wrong and are logged without a traceback.
    """

    @functools.wraps(handler)
    async def guard(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise _refusal(handler.__name__, error, expected) from error

    return guard


def answered(
    handler: Callable[P, T],
    expected: tuple[type[Exception], ...] = (),
    locate: Callable[..., object] = lambda *_: None,
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a handler of a function that answers at once, guarded in the same way.

    It takes one coroutine instead of two, and most requests take no longer than making one.
    `locate` gets an error and the handler's arguments, and may add to it where it comes from.
    """

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            locate(error, *args)
            raise _refusal(handler.__name__, error, expected) from error

    return answer


def _refusal(
    request: str, error: Exception, expected: tuple[type[Exception], ...]
) -> pyfuse3.FUSEError:
    """What the kernel is told of an error."""
    if isinstance(error, OSError):
        return pyfuse3.FUSEError(error.errno or errno.EIO)
    if isinstance(error, expected):
        log.error("%s: %s", request, error)
    else:
        log.error("%s failed", request, exc_info=error)
    return pyfuse3.FUSEError(errno.EIO)


def done() -> "asyncio.Future[None]":
    """What can be awaited any number of times, and costs less than a coroutine that does nothing.

    Waiting for a request makes three of those otherwise.
    """
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


class _Turn:
    """The right to wait for the next request, which pyfuse3's tasks have one after the other.

    asyncio.Lock would hand it to whoever waits longest, so that every request switches tasks; here
    the task that has just answered keeps it, and another gets it when that one waits for something.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._done = done()

    def __aenter__(self) -> Awaitable[None]:
        if self._taken:
            return self._wait()
        self._taken = True
        return self._done

    def __aexit__(self, *_: object) -> Awaitable[None]:
        self._taken = False
        if self._waiting and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)
        return self._done

    async def _wait(self) -> None:
        while self._taken:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        self._taken = True

    def _wake(self) -> None:
        self._waking = False
        while self._waiting and not self._taken:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                break


class _Requests:
    """Waits until the kernel has a request, in the thread while there are many of them.

    pyfuse3's own way registers the descriptor with the event loop and removes it again for every
    request: it takes more time than most answers do.
    """

    def __init__(self, on_answered: Callable[[], None]) -> None:
        self._on_answered = on_answered
        self._in_a_row = 0
        self._waiter: asyncio.Future[None] | None = None
        self._watched = False
        self._done = done()

    def wait(self, fd: int) -> Awaitable[None]:
        self._on_answered()
        if fd < _SELECT_LIMIT:
            readable, _, _ = select.select([fd], [], [], _NEXT_REQUEST)
            if readable:
                self._in_a_row += 1
                if self._in_a_row < _REQUESTS_IN_A_ROW:
                    return self._done
                self._in_a_row = 0
                return self._let_others_work(fd)
        self._in_a_row = 0
        return self._wait_in_loop(fd)

    async def _let_others_work(self, fd: int) -> None:
        await asyncio.sleep(0)
        if not _is_readable(fd):  # whoever asked has been killed
            await self._wait_in_loop(fd)

    async def _wait_in_loop(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._waiter = loop.create_future()
            if not self._watched:
                loop.add_reader(fd, self._readable, fd)
                self._watched = True
            await self._waiter
            # The event loop may have noticed a request that has been answered since, and reading
            # where there is none would block the whole process.
            if _is_readable(fd):
                return

    def close(self, _: int) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(pyfuse3_asyncio.ClosedResourceError())

    def _readable(self, fd: int) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        else:  # nobody waits: every task is at work
            asyncio.get_running_loop().remove_reader(fd)
            self._watched = False


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _answer_came_too_late(record: logging.LogRecord) -> bool:
    """Tell whether pyfuse3 logs that nobody waits for an answer any more.

    The kernel says ENOENT where a request ended before its answer came: its caller was killed, or
    the filesystem detached. That is no error of anybody's.
    """
    return "fuse_reply_* failed" in record.msg and record.args == (os.strerror(errno.ENOENT),)


def _enable(on_answered: Callable[[], None]) -> None:
    """Have pyfuse3 use asyncio, and our way of waiting for requests."""
    pyfuse3_asyncio.enable()
    requests = _Requests(on_answered)
    # the module stands in for trio inside of pyfuse3, which looks these up in it
    for name, replacement in (
        ("Lock", _Turn),
        ("wait_readable", requests.wait),
        ("notify_closing", requests.close),
    ):
        setattr(pyfuse3_asyncio, name, replacement)


async def run(
    operations: Any,
    mount_point: str,
    options: Iterable[str],
    on_ready: Callable[[], None],
    on_answered: Callable[[], None] = lambda: None,
) -> None:
    """Mount `operations` (a pyfuse3.Operations) and serve it until it is unmounted.

    `on_ready` is called once the kernel has the mount, `on_answered` after each answer: what it
    does, briefly and without raising, is done while the client works. Raises RuntimeError where
    mounting fails (standard error then says why). Cancelling ends the service and
    unmounts.
    """
    _enable(on_answered)
    logging.getLogger("pyfuse3").addFilter(lambda record: not _answer_came_too_late(record))
    with _session(operations, mount_point, set(options)):
        on_ready()
        await pyfuse3.main()


@contextlib.contextmanager
def _session(operations: Any, mount_point: str, options: set[str]) -> Iterator[None]:
    """Mount, and unmount unless the body comes to its end: then the mount is gone already."""
    by_libfuse = os.geteuid() == 0
    place = mount_point if by_libfuse else f"/dev/fd/{fusermount.mount(mount_point, options)}"
    unmount = True
    try:
        pyfuse3.init(operations, place, options)
        try:
            yield
            unmount = False
        finally:
            with contextlib.suppress(OSError):  # somebody else has detached it
                pyfuse3.close(unmount=unmount)
    finally:
        if unmount and not by_libfuse:
            fusermount.unmount(mount_point)
