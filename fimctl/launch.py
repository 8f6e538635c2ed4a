"""Starting a program in an image: one call to the daemon, then this process becomes bubblewrap."""

from __future__ import annotations

import os
import sys

# what the module `signal` makes enumerations of, which takes it longer than a call to the daemon
from _signal import SIG_DFL, SIG_IGN, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]

from fimctl.daemon import Daemon
from fimctl.environment import options_of_environment
from fimctl.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final, NoReturn

# What of the caller's environment bears on the launch plan; the rest is inherited anyway.
_SENT: Final = (
    *("HOME", "USER", "PATH", "LD_LIBRARY_PATH"),
    *("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY"),
    "DBUS_SESSION_BUS_ADDRESS",
)
_HIDDEN: Final = "casefold cannot"
"""Beginning of a warning that only FIM_DEBUG=1 shows, as in FlatImage: it comes at every start."""
_EXPANDED: Final = ("expand-argv", "expand-environment", "expand-identity")


def launch(
    image: str,
    mode: str,
    words: Sequence[str],
    options: Mapping[str, tuple[str, Any]] | None = None,
) -> NoReturn:
    """Become the program `words` inside an image. Raises ClientError where that can't be.

    `mode` is exec, root or boot; `options` go to StartInstance as they are.
    """
    environment = os.environ
    sent = [os.fsencode(f"{name}={environment[name]}") for name in _SENT if name in environment]
    asked: dict[str, tuple[str, Any]] = {
        "mode": ("s", mode),
        "command": ("aay", [os.fsencode(word) for word in words]),
        "environment": ("aay", sent),
        **options_of_environment(image),
        **(options or {}),
    }
    debugging = environment.get("FIM_DEBUG") == "1"
    if debugging:
        asked["debug"] = ("b", True)
    body = (os.fsencode(os.path.abspath(image)), asked)
    wait = asked["wait"][1] if "wait" in asked else 0
    with Daemon() as daemon:
        _, argv, variables, details = daemon.manager("StartInstance", "aya{sv}", body, wait=wait)
    if debugging or "warnings" in details:
        _tell(details, debugging=debugging)
    inside = dict(os.environb)
    for variable in variables:
        key, _, value = bytes(variable).partition(b"=")
        inside[key] = value
    if not details.keys().isdisjoint(_EXPANDED):
        from fimctl.expand import expand_plan  # noqa: PLC0415 - few images need it

        argv = expand_plan(argv, inside, details)
    if "desktop" in details:
        from fimctl.desktop.integration import integrate  # noqa: PLC0415 - few images ask for it

        integrate(image, notify="notify" in details)
    inside[b"PWD"] = os.getcwdb()  # what bubblewrap keeps, across namespaces
    command = [*map(bytes, argv), *map(os.fsencode, words)]
    sys.stdout.flush()
    for number in (SIGPIPE, SIGXFSZ):  # which Python ignores
        signal(number, SIG_DFL)
    for number in details.get("ignore-signals", ("au", []))[1]:
        signal(number, SIG_IGN)
    try:
        os.execvpe(command[0], command, inside)  # noqa: S606 - the plan is an argument list
    except OSError as error:
        raise ClientError(
            f"{os.fsdecode(command[0])} can't be executed ({error.strerror}): install "
            f"bubblewrap and util-linux"
        ) from error


def _tell(details: Mapping[str, tuple[str, Any]], *, debugging: bool) -> None:
    """Print what the daemon says about a start.

    A program has its streams to itself: only what makes it another than it should be is told.
    """
    from fimctl import messages  # noqa: PLC0415 - a program starts without it

    for line in details.get("debug", ("aay", []))[1]:
        messages.debug(os.fsdecode(bytes(line)))
    for warning in details.get("warnings", ("as", []))[1]:
        if debugging and warning.startswith("the overlay bwrap"):
            name = warning.rpartition(" ")[2]
            messages.warning(f"Bwrap failed SYS_mount, retrying with fuse-{name}...")
        if debugging or not warning.startswith(_HIDDEN):
            messages.warning(warning)
