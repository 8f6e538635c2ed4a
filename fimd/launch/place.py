"""Where an instance lives on the host, and the variables that tell its programs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fimd.base import build

HOST_PATH: Final = "/sbin:/usr/sbin:/usr/local/sbin:/bin:/usr/bin:/usr/local/bin"
HOST_LIBRARIES: Final = "/usr/lib/x86_64-linux-gnu:/usr/lib/i386-linux-gnu"

LOCK: Final = "lock"
"""The name of a file in an instance's directory: see Place.lock."""


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
    join: tuple[str, ...] = ()
    """The beginning of a command that is run in the user's namespace."""
    namespaces: tuple[str, str] = ("", "")
    """Links to the namespaces that it joins: see fimd.mounts.holder.Holder.links."""
    shared: str = "/tmp"  # noqa: S108 - by FlatImage's contract
    """What the sandbox gets for its /tmp: the host's, without what is mounted in the namespace."""

    is_alone: bool = False
    """Whether root inside has no id but one, to give files to nobody else."""

    @property
    def programs(self) -> str:
        """FIM_DIR_APP_BIN."""
        return os.path.join(self.app, "bin")

    @property
    def lock(self) -> str:
        """The file by whose lock the daemon knows what runs inside (fimd/launch/entry.c)."""
        return os.path.join(self.directory, LOCK)

    @property
    def applets(self) -> str:
        """FIM_DIR_APP_SBIN: busybox's programs."""
        return os.path.join(self.app, "sbin")


def exported(place: Place, caller: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every program inside has, by what the caller's are.

    The expansion of stored values sees them too.
    """
    libraries = caller.get("LD_LIBRARY_PATH")
    path = [place.programs, caller.get("PATH", ""), HOST_PATH, place.applets]
    runtime = os.path.join(place.global_directory, "run")
    return {
        "FIM_VERSION": build.VERSION,
        "FIM_COMMIT": build.COMMIT,
        "FIM_DIST": build.DISTRIBUTION,
        "FIM_TIMESTAMP": build.timestamp(),
        "FIM_BIN_SELF": place.image,
        "FIM_DIR_SELF": os.path.dirname(place.image),
        "FIM_OFFSET": str(place.reserved_offset),
        "FIM_PID": str(place.pid),
        "FIM_DIR_GLOBAL": place.global_directory,
        "FIM_DIR_APP": place.app,
        "FIM_DIR_APP_BIN": place.programs,
        "FIM_DIR_APP_SBIN": place.applets,
        "FIM_DIR_INSTANCE": place.directory,
        "FIM_DIR_RUNTIME": runtime,
        "FIM_DIR_RUNTIME_HOST": os.path.join(runtime, "host"),
        "FIM_DIR_DATA": place.data,
        "FIM_DIR_LAYERS": place.layers,
        "PATH": ":".join(part for part in path if part),
        "LD_LIBRARY_PATH": HOST_LIBRARIES + (f":{libraries}" if libraries else ""),
        "TERM": "xterm",
    }
