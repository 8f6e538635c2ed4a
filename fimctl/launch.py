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

_TOO_LONG: Final = 7
"""E2BIG; `errno` is one more module."""
_UNPACKING: Final = 3600.0
"""Seconds that a start may take where FUSE is missing, and layers are unpacked."""
_HIDDEN: Final = "casefold cannot"
"""Beginning of a warning that only FIM_DEBUG=1 shows, as in FlatImage: it comes at every start."""


def launch(
    image: str,
    mode: str,
    words: Sequence[str],
    options: Mapping[str, tuple[str, Any]] | None = None,
) -> NoReturn:
    """Become the program `words` inside an image. Raises ClientError where that can't be.

    `mode` is exec, root or boot; `options` go to StartInstance as they are.
    """
    environment = os.environb
    asked: dict[str, tuple[str, Any]] = {
        "mode": ("s", mode),
        "command": ("aay", [os.fsencode(word) for word in words]),
        "environment": ("aay", [b"%b=%b" % pair for pair in environment.items()]),
        **options_of_environment(image),
        **(options or {}),
    }
    debugging = environment.get(b"FIM_DEBUG") == b"1"
    if debugging:
        asked["debug"] = ("b", True)
    body = (os.fsencode(os.path.abspath(image)), asked)
    wait = asked["wait"][1] if "wait" in asked else 0
    if not os.access("/dev/fuse", os.W_OK):
        wait += _UNPACKING
    with Daemon() as daemon:
        _, argv, variables, details = daemon.manager("StartInstance", "aya{sv}", body, wait=wait)
    if debugging or "warnings" in details:
        _tell(details, debugging=debugging)
    if "find" in details:
        _find(details["find"][1])
    for variable in variables:
        key, _, value = bytes(variable).partition(b"=")
        environment[key] = value
    if "desktop" in details:
        from fimctl.desktop.integration import integrate  # noqa: PLC0415 - few images ask for it

        integrate(image, notify="notify" in details)
    environment[b"PWD"] = os.getcwdb()  # what bubblewrap keeps, across namespaces
    command = [*map(bytes, argv), *map(os.fsencode, words)]
    sys.stdout.flush()
    for number in (SIGPIPE, SIGXFSZ):  # which Python ignores
        signal(number, SIG_DFL)
    for number in details.get("ignore-signals", ("au", []))[1]:
        signal(number, SIG_IGN)
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - the plan is an argument list
    except OSError as error:
        if error.errno == _TOO_LONG:
            raise ClientError(
                "the words and variables of the program are too long for this kernel, with those "
                "of its sandbox: use fewer, or raise the limit (ulimit -s)"
            ) from error
        raise ClientError(
            f"{os.fsdecode(command[0])} can't be executed ({error.strerror}): install "
            f"bubblewrap and util-linux"
        ) from error


def _find(files: Sequence[tuple[bytes, int, int]]) -> None:
    """Look whether this process has the files that fimd has. Raises ClientError."""
    for path, device, inode in files:
        try:
            facts = os.stat(path)
        except OSError:
            here = (0, 0)
        else:
            here = (facts.st_dev, facts.st_ino)
        if here != (device, inode):
            raise ClientError(
                f"{os.fsdecode(path)} is not the same here as for fimd, since this process has "
                "mounts of its own (such as a private /tmp): start the image outside of them"
            )


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
