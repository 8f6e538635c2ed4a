"""`fimd`, or `python -m fimd`: the daemon in the foreground."""

import argparse
import asyncio
import contextlib
import faulthandler
import os
import sys

from fimd import __version__
from fimd.base.errors import NO_ROOM, FimError, no_room

_STARTED_BY_BUS = "DBUS_STARTER_BUS_TYPE"
"""A variable that dbus-daemon(1) gives what it starts."""


def main() -> int:
    """Run the daemon; its exit status is EX_CONFIG where it can't start as things are."""
    faulthandler.enable()  # systemd's watchdog ends a hanging daemon by SIGABRT: say where it hung
    parser = argparse.ArgumentParser(
        prog="fimd",
        description="Own the mounts of this user's FlatImage applications, on the session bus.",
    )
    parser.add_argument("--version", action="version", version=f"fimd {__version__}")
    parser.add_argument("--json", action="store_true", help="log JSON lines")
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
        asyncio.run(run(live))
    except FimError as error:
        print(f"fimd: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        _tell_caller(error)
        return os.EX_CONFIG  # sysexits.h; the unit is not restarted for it
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"fimd: {no_room(error)}", file=sys.stderr)  # noqa: T201 - as above
        _tell_caller(FimError(no_room(error)))
        return os.EX_CONFIG
    return 0


def _tell_caller(error: FimError) -> None:
    """Answer the call for which dbus-daemon, or systemd on its behalf, started this process."""
    from fimd.bus.refusal import refuse  # noqa: PLC0415 - only where it is needed
    from fimd.service.scopes import managed  # noqa: PLC0415

    if _STARTED_BY_BUS not in os.environ and not managed():
        return
    with contextlib.suppress(FimError):  # the bus itself may be what is missing
        asyncio.run(refuse(error))


if __name__ == "__main__":
    sys.exit(main())
