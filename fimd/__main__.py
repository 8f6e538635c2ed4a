"""`fimd`, or `python -m fimd`: the daemon in the foreground."""

import argparse
import asyncio
import contextlib
import faulthandler
import os
import sys
from functools import partial

from fimd import __version__
from fimd.base.errors import NO_ROOM, FimError, no_room
from fimd.base.streams import fill

_STARTED_BY_BUS = "DBUS_STARTER_BUS_TYPE"
"""A variable that dbus-daemon(1) gives what it starts."""


def main() -> int:
    """Run the daemon; its exit status is EX_CONFIG where it can't start as things are."""
    fill(inheritable=True)
    if sys.flags.ignore_environment:  # then neither is what this starts to heed them
        for name in [name for name in os.environ if name.startswith("PYTHON")]:
            del os.environ[name]
    faulthandler.enable()  # systemd's watchdog ends a hanging daemon by SIGABRT: say where it hung
    parser = argparse.ArgumentParser(
        prog="fimd",
        description="Own the mounts of this user's FlatImage applications.",
    )
    parser.add_argument("--version", action="version", version=f"fimd {__version__}")
    parser.add_argument("--json", action="store_true", help="log JSON lines")
    parser.add_argument(
        "--on-demand",
        action="store_true",
        help="leave when there was nothing to do for the time of the setting 'idle'",
    )
    parser.add_argument("--tell", type=int, metavar="FD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    from fimd.base.live import LiveSettings  # noqa: PLC0415
    from fimd.base.logs import leave_terminal, setup  # noqa: PLC0415
    from fimd.daemon import run  # noqa: PLC0415 - --help need not wait for it
    from fimd.mounts import descriptors  # noqa: PLC0415

    try:
        live = LiveSettings.load()
        if _STARTED_BY_BUS in os.environ:
            leave_terminal()
        setup(live.settings.log_level, json=arguments.json)
        descriptors.take()
        on_ready = partial(_tell_client, arguments.tell, "")
        asyncio.run(run(live, on_demand=arguments.on_demand, on_ready=on_ready))
    except FimError as error:
        if _is_started_for_others() and _hand_over(error):
            return 0
        return _refuse(error, arguments.tell)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _refuse(FimError(no_room(error)), arguments.tell)
    return 0


def _refuse(error: FimError, client: int | None) -> int:
    """Tell everybody who waits why it can't start; return the exit status."""
    print(f"fimd: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
    _tell_client(client, str(error))
    _tell_caller(error)
    return os.EX_CONFIG  # sysexits.h; the unit is not restarted for it


def _tell_client(descriptor: int | None, text: str) -> None:
    """Tell the client that started this process what came of it: nothing, or why it can't be."""
    if descriptor is not None:
        with contextlib.suppress(OSError):  # it did not wait
            os.write(descriptor, text.encode(errors="surrogateescape") + b"\0")
            os.close(descriptor)


def _is_started_for_others() -> bool:
    """Tell whether dbus-daemon(1), or systemd, has started this process for a call."""
    from fimd.service.scopes import managed  # noqa: PLC0415 - only where it is needed

    return _STARTED_BY_BUS in os.environ or managed()


def _hand_over(error: FimError) -> bool:
    """Have the daemon that is there already serve this bus too; tell whether it does."""
    from fimd.base.errors import BusyError  # noqa: PLC0415 - only where it is needed
    from fimd.bus.handing_over import hand_over  # noqa: PLC0415
    from systemd import daemon  # type: ignore[attr-defined]  # noqa: PLC0415

    if not isinstance(error, BusyError):
        return False
    try:
        asyncio.run(hand_over())
    except FimError:
        return False
    daemon.notify("READY=1\nSTATUS=another fimd serves this session too")
    return True


def _tell_caller(error: FimError) -> None:
    """Answer the call for which this process was started, if it was."""
    from fimd.bus.refusal import refuse  # noqa: PLC0415 - only where it is needed
    from fimd.service.sockets import given  # noqa: PLC0415

    if _is_started_for_others():
        asyncio.run(refuse(error, given()))


if __name__ == "__main__":
    sys.exit(main())
