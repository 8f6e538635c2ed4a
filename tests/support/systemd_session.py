"""A real session of a plain user: systemd --user with its bus, on a machine that root has."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.support.account import Account
from tests.support.session import mounted_below, wait_for

MANAGER: Final = Path("/lib/systemd/systemd")
_BOOTED: Final = Path("/run/systemd/system")
"""The manager does not start where this is missing, as on a machine that systemd did not boot."""


def hindrance() -> str | None:
    """Return why there can be no such session here."""
    if os.getuid() != 0:
        return "only root can begin a session for somebody else"
    if not MANAGER.exists() or shutil.which("systemctl") is None:
        return "systemd is not installed"
    if not Path("/usr/lib/systemd/user/dbus.socket").exists():
        return "dbus-user-session is not installed"
    if not _hierarchies():
        return "there is no cgroup hierarchy to delegate"
    return None


def _hierarchies() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    hybrid = [root / "systemd", root / "unified"]
    found = [path for path in hybrid if (path / "cgroup.procs").exists()]
    if not found and (root / "cgroup.procs").exists():
        found = [root]
    return [path for path in found if os.access(path, os.W_OK)]


@dataclass
class SystemdSession:
    """A user's manager, from login to logout. All of it lies below `directory`."""

    directory: Path
    account: Account

    def __enter__(self) -> Self:
        self._made_mark = not _BOOTED.exists()
        _BOOTED.mkdir(parents=True, exist_ok=True)
        for name in ("home", "run", "work"):
            (self.directory / name).mkdir(mode=0o700)
            os.chown(self.directory / name, self.account.uid, self.account.gid)
        self._groups = [path / f"fimd-test-{os.getpid()}" for path in _hierarchies()]
        for group in self._groups:
            group.mkdir()
            for path in (group, *group.iterdir()):
                os.chown(path, self.account.uid, self.account.gid)
        join = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self._groups)
        identity = f"--reuid {self.account.uid} --regid {self.account.gid} --clear-groups"
        self.log = (self.directory / "log").open("wb")
        self.manager = subprocess.Popen(
            ["sh", "-ec", f"{join} exec setpriv {identity} {MANAGER} --user"],
            env=self.environment,
            cwd=self.directory / "work",
            stdout=self.log,
            stderr=self.log,
        )
        wait_for((self.directory / "run" / "bus").exists, 20, "the session bus")
        wait_for(
            lambda: (
                self.run("systemctl", "--user", "is-system-running").stdout.strip()
                in {"running", "degraded"}
            ),
            20,
            "the user's manager",
        )
        return self

    def __exit__(self, *_outcome: object) -> None:
        self.log_out()
        self.log.close()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.processes(), 10, "the end of the session's processes")
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "-l", mount], check=False)
        for group in self._groups:
            for name, _, _ in os.walk(group, topdown=False):
                os.rmdir(name)
        if self._made_mark:
            with suppress(OSError):
                _BOOTED.rmdir()

    def log_out(self) -> None:
        """End the manager, which ends all of its units."""
        if self.manager.poll() is None:
            self.manager.send_signal(signal.SIGTERM)
            try:
                self.manager.wait(60)
            except subprocess.TimeoutExpired:
                self.manager.kill()
                self.manager.wait()

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the session."""
        programs = Path(sys.executable).parent
        return {
            "HOME": str(self.directory / "home"),
            "USER": self.account.name,
            "LANG": "C.UTF-8",
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            # the bus takes the home from the user database, and everybody else from HOME
            "XDG_DATA_HOME": str(self.directory / "home" / ".local" / "share"),
            "FIM_DIR_GLOBAL": str(self.directory / "fim"),
            "FIMD_LINGER": "1",
        }

    @property
    def tree(self) -> Path:
        """The user's part of the runtime tree."""
        return self.directory / "fim" / "app" / f"u{self.account.uid}"

    def run(self, *command: str | os.PathLike[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the session to its end."""
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.directory / "work",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **self.account.switch,
        )

    def output(self, *command: str | os.PathLike[str]) -> str:
        """Run a command that has to succeed, and return what it printed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{done}\n{self.said()}"
        return done.stdout

    def unit(self, name: str, *properties: str) -> list[str]:
        """Return properties of a unit."""
        words = [f"--property={item}" for item in properties]
        shown = self.output("systemctl", "--user", "show", *words, name)
        facts = dict(line.split("=", 1) for line in shown.splitlines())
        return [facts.get(item, "") for item in properties]

    def processes(self) -> list[int]:
        """Return the processes in the session's control group."""
        found = set()
        for name, _, _ in os.walk(self._groups[0]):
            with suppress(OSError):
                found |= set(map(int, Path(name, "cgroup.procs").read_text().split()))
        return sorted(found)

    def mounts(self) -> list[str]:
        """Return what is mounted below the session's directory, on the host or in its namespace."""
        return mounted_below(self.directory, self.processes())

    def said(self) -> str:
        """Return what the manager and the daemon logged."""
        logged = [self.directory / "log", self.tree / "fimd.log"]
        texts = [path.read_text(errors="replace")[-4000:] for path in logged if path.exists()]
        return "\n".join(texts)

    def wait_until_clean(self, seconds: float = 20) -> None:
        """Wait until no mount is left, and no directory of one."""
        deadline = time.monotonic() + seconds
        kinds = ("layers", "stacks", "instance")
        while time.monotonic() < deadline:
            left = [str(path) for kind in kinds for path in (self.tree / kind).glob("*")]
            if not self.mounts() and not left:
                return
            time.sleep(0.1)
        raise AssertionError(f"left: {self.mounts()} {left}\n{self.said()}")
