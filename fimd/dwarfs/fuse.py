"""One FUSE filesystem served by pyfuse3 on asyncio, with its known traps closed.

pyfuse3 serves one filesystem per process, and importing it is slow (it brings trio), so nothing
imports this module but a process that is going to be a filesystem.
"""

import contextlib
import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import pyfuse3

try:  # pyfuse3 3.3 and later
    from pyfuse3 import asyncio as pyfuse3_asyncio
except ImportError:  # Debian 12's 3.2 has it as a module of its own
    import pyfuse3_asyncio  # type: ignore[no-redef]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def guarded(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Answer EIO, and log why, where a handler fails with anything but a FUSEError.

    Under asyncio pyfuse3 loses such an exception, and the caller in the kernel waits for ever.
    """

    @functools.wraps(handler)
    async def guard(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            log.exception("%s failed", handler.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return guard


async def run(
    operations: Any,
    mount_point: str,
    options: Iterable[str],
    on_ready: Callable[[], None],
) -> None:
    """Mount `operations` (a pyfuse3.Operations) and serve it until it is unmounted.

    `on_ready` is called once the kernel has the mount. Raises RuntimeError where mounting fails
    (libfuse has then said why on standard error). Cancelling ends the service and unmounts.
    """
    pyfuse3_asyncio.enable()
    pyfuse3.init(operations, mount_point, set(options))
    unmount = True
    try:
        on_ready()
        await pyfuse3.main()
        unmount = False  # the kernel ended the connection: the mount is gone already
    finally:
        with contextlib.suppress(OSError):  # somebody else has detached it
            pyfuse3.close(unmount=unmount)
