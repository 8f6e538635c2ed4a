"""Starting a program in an image: one call to the daemon, then this process becomes bubblewrap."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from fimctl.daemon import Daemon
from fimctl.errors import ClientError

# What of the caller's environment bears on the launch plan; the rest is inherited anyway.
_SENT: Final = (
    *("HOME", "USER", "PATH", "LD_LIBRARY_PATH"),
    *("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY"),
    "DBUS_SESSION_BUS_ADDRESS",
)
_OVERLAYS: Final = ("bwrap", "overlayfs", "unionfs")


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
        **options_of_environment(environment),
        **(options or {}),
    }
    with Daemon() as daemon:
        _, argv, variables, details = daemon.manager(
            "StartInstance", "aya{sv}", (os.fsencode(os.path.abspath(image)), asked)
        )
    for warning in details["warnings"][1]:
        if environment.get("FIM_DEBUG") == "1" or not warning.startswith("casefold cannot"):
            print(f"fimctl: {warning}", file=sys.stderr)
    inside = dict(os.environb)
    for variable in variables:
        key, _, value = bytes(variable).partition(b"=")
        inside[key] = value
    inside[b"PWD"] = os.getcwdb()  # what bubblewrap keeps, across namespaces
    command = [*map(bytes, argv), *map(os.fsencode, words)]
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, inside)  # noqa: S606 - the plan is an argument list
    except OSError as error:
        raise ClientError(
            f"{os.fsdecode(command[0])} can't be executed ({error.strerror}): install "
            f"bubblewrap and util-linux"
        ) from error


def options_of_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Return what FIM_LAYERS, FIM_OVERLAY, FIM_CASEFOLD, FIM_ROOT and FIM_DIR_DATA ask for."""
    options: dict[str, tuple[str, Any]] = {}
    layers = [entry for entry in environment.get("FIM_LAYERS", "").split(":") if entry]
    if layers:
        expanded = (os.path.abspath(os.path.expanduser(entry)) for entry in layers)
        options["layers"] = ("aay", [os.fsencode(path) for path in expanded])
    if environment.get("FIM_OVERLAY") in _OVERLAYS:
        options["overlay"] = ("s", environment["FIM_OVERLAY"])
    if environment.get("FIM_CASEFOLD") == "1":
        options["casefold"] = ("s", "on")
    if environment.get("FIM_ROOT") == "1":
        options["root"] = ("b", True)
    if environment.get("FIM_DIR_DATA"):
        options["data"] = ("ay", os.fsencode(os.path.abspath(environment["FIM_DIR_DATA"])))
    return options
