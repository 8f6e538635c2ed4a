"""The launch plan: what the client executes to become the instance.

The client's process becomes bubblewrap with the program as its child. The client appends the
program's words to `argv`, and sets `environment` over its own.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fimd.instances.identity import Identity
from fimd.overlays.stack import Overlay

HOST_PATH: Final = "/sbin:/usr/sbin:/usr/local/sbin:/bin:/usr/bin:/usr/local/bin"
HOST_LIBRARIES: Final = "/usr/lib/x86_64-linux-gnu:/usr/lib/i386-linux-gnu"

# A shell looks the program up, so that names, paths and builtins work, and a program that is not
# there, or can't be executed, gives the exit codes 127 and 126. The words stay arguments. Only
# exec makes every shell leave its place to the program, which bubblewrap is to have as its child.
_RUN: Final = (
    'case $1 in */*) exec "$@";; esac; case $(command -v -- "$1") in */*) exec "$@";; esac; "$@"'
)


@dataclass(frozen=True)
class LaunchPlan:
    """A command and the variables that it needs over the caller's environment."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where an instance lives on the host."""

    image: str
    data: str
    layers: str
    directory: str
    """The instance's own directory in the runtime tree."""
    app: str
    """The user's directory in the runtime tree."""
    global_directory: str
    pid: int
    reserved_offset: int


def launch_plan(
    place: Place,
    overlay: Overlay,
    root: str,
    identity: Identity,
    caller: Mapping[str, str],
    words: tuple[str, ...],
) -> LaunchPlan:
    """Make the plan of an instance.

    `root` is the tree to be seen as /, `caller` the caller's environment, `words` what stands
    before the caller's words in the command.
    """
    runtime = caller.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    argv = [
        *overlay.join,
        *("bwrap", "--die-with-parent"),
        *(() if os.getuid() == 0 else ("--unshare-user",)),
        *("--bind", root, "/"),
        *("--uid", str(identity.uid), "--gid", str(identity.gid)),
        *("--dev", "/dev", "--proc", "/proc", "--bind", "/sys", "/sys"),
        *("--bind", "/tmp", "/tmp"),  # noqa: S108 - shared with the host by FlatImage's contract
        *("--bind-try", "/etc/group", "/etc/group"),
        *("--bind-try", os.path.join(place.directory, "passwd"), "/etc/passwd"),
        *("--", identity_shell(place), "-c", _RUN, os.path.basename(place.image)),
        *words,
    ]
    return LaunchPlan(tuple(argv), _environment(place, identity, caller, runtime))


def identity_shell(place: Place) -> str:
    """Return a shell that the sandbox has: the one beside the runtime tree, or the image's own."""
    bundled = os.path.join(place.app, "bin", "bash")
    return bundled if os.path.exists(bundled) else "/bin/sh"


def _environment(
    place: Place, identity: Identity, caller: Mapping[str, str], runtime: str
) -> dict[str, str]:
    programs, applets = os.path.join(place.app, "bin"), os.path.join(place.app, "sbin")
    libraries = caller.get("LD_LIBRARY_PATH")
    path = [programs, caller.get("PATH", ""), HOST_PATH, applets]
    return {
        "FIM_BIN_SELF": place.image,
        "FIM_DIR_SELF": os.path.dirname(place.image),
        "FIM_OFFSET": str(place.reserved_offset),
        "FIM_PID": str(place.pid),
        "FIM_DIR_GLOBAL": place.global_directory,
        "FIM_DIR_APP": place.app,
        "FIM_DIR_APP_BIN": programs,
        "FIM_DIR_APP_SBIN": applets,
        "FIM_DIR_INSTANCE": place.directory,
        "FIM_DIR_DATA": place.data,
        "FIM_DIR_LAYERS": place.layers,
        "PATH": ":".join(part for part in path if part),
        "LD_LIBRARY_PATH": HOST_LIBRARIES + (f":{libraries}" if libraries else ""),
        "TERM": "xterm",
        "HOME": identity.home,
        "USER": identity.name,
        "SHELL": identity.shell,
        "XDG_RUNTIME_DIR": runtime,
    }
