"""The accounts that tests run as: this one, and a plain user where this one is root."""

import os
import pwd
import shutil
import stat
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
PLAIN_ACCOUNT = "games"
"""Every Debian has it, it owns nothing, and nobody logs in as it."""

_NEEDED = (
    *("fimd", "fimctl", "attr", "attrs", "dbus_next", "idna", "jeepney", "lz4", "numpy"),
    *("numpy.libs", "outcome", "pyfuse3", "sniffio", "sortedcontainers", "structlog", "systemd"),
    *("trio", "typing_extensions.py", "xxhash", "zstandard", "brotli.py"),
)


@dataclass(frozen=True)
class Account:
    """An account, and how programs of the project are run as it."""

    uid: int
    gid: int
    name: str
    python: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def switch(self) -> dict[str, Any]:
        """What subprocess needs to run as the account."""
        if self.uid == os.getuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def script(self, module: str) -> str:
        """Return a script that runs a module of the project; traced, for strace_check.py."""
        program = f"{self.python} -P -m {module}"
        traces = os.environ.get("FIMD_TRACE")
        if traces is None:
            return f'#!/bin/sh\nexec {program} "$@"\n'
        # The program is not among strace's own words: who looks for the daemon is not to find it.
        return (
            f"#!/bin/sh\nname={traces}/$$\nexport FIMD_TRACED='exec {program} \"$@\"'\n"
            f"exec strace -ff -y -s 8192 --seccomp-bpf -e trace=%file,%process,chdir -o $name "
            f"sh -c 'echo $$ > '$name'.first; eval \"$FIMD_TRACED\"' sh \"$@\"\n"
        )

    def installed(self, module: str) -> str:
        """Return a program of the project as the Debian package installs its client.

        That is without a shell, and without `site`, which finds what is installed beside it.
        """
        copied = self.environment.get("PYTHONPATH", "").split(":")
        places = [*filter(None, copied), str(PROJECT), sysconfig.get_path("platlib")]
        return (
            f"#!{self.python} -SI\nimport sys\n\nsys.path += {places!r}\n"
            f"from {module}.__main__ import main\n\nsys.exit(main())\n"
        )


def own() -> Account:
    """Return the account that the tests run as."""
    return Account(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name, sys.executable)


def plain(scratch: Path) -> Account | None:
    """Return a plain user: this one, or one that root can become; None where there is none.

    Where that user can't read the project, it is copied to `scratch` with what it needs.
    """
    if os.getuid() != 0:
        return own()
    try:
        entry = pwd.getpwnam(PLAIN_ACCOUNT)
    except KeyError:
        return None
    ids = (entry.pw_uid, entry.pw_gid, entry.pw_name)
    if _readable(PROJECT) and _readable(Path(sys.prefix)) and _readable(Path(sys.executable)):
        return Account(*ids, sys.executable)
    for source in (PROJECT, Path(sysconfig.get_path("platlib"))):
        for name in _NEEDED:
            if (source / name).is_dir():
                shutil.copytree(source / name, scratch / name, dirs_exist_ok=True)
            elif (source / name).is_file():
                shutil.copy(source / name, scratch / name)
    for extension in Path(sysconfig.get_path("platlib")).glob("_brotli*"):
        shutil.copy(extension, scratch)
    for path in (scratch, *scratch.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IROTH | (path.is_dir() and stat.S_IXOTH))
    interpreter = os.path.realpath(sys.executable)
    return Account(*ids, interpreter, {"PYTHONPATH": str(scratch)})


def is_root_of_others() -> bool:
    """Tell whether this is root, and not of a namespace in which nobody else is."""
    first = Path("/proc/self/uid_map").read_text().split()
    return os.getuid() == 0 and int(first[2]) > 1


def _readable(path: Path) -> bool:
    """Tell whether anybody may read a path."""
    real = path.resolve()
    ways = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
    return ways and bool(real.stat().st_mode & stat.S_IROTH)
