"""A login session of its own for a test: bus, home, runtime tree, and the daemon by activation."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.account import Account

BUS_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <servicedir>{services}</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
ONCE = "this is told once for each image"


@dataclass
class Session:
    """A session of one account. Everything of it lies below `directory`."""

    directory: Path
    account: Account
    settings: Mapping[str, str] = field(default_factory=dict)
    """FIMD_* variables of the daemon."""
    wrap: Sequence[str] = ()
    """A command, started as the tests' own account, that the bus runs under: it has to become the
    session's account."""

    has_bus: bool = True

    _started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    bus: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        for name in ("home", "run", "services", "bin", "work"):
            self._directory(name, 0o700 if name == "run" else 0o755)
        self._write("bin/fimctl", self.account.installed("fimctl"), 0o755)
        self._write("bin/fimd", self.account.script("fimd"), 0o755)
        name = "org.flatimage.Fim1"
        service = f"[D-BUS Service]\nName={name}\nExec={self.directory}/bin/fimd\n"
        self._write(f"services/{name}.service", service)
        config = BUS_CONFIG.format(
            socket=self.directory / "run" / "bus", services=self.directory / "services"
        )
        self._write("bus.conf", config)
        self.log = (self.directory / "log").open("wb")
        if self.has_bus:
            self.start_bus()
        return self

    def start_bus(self) -> None:
        """Start the session bus, once more where it has ended."""
        address = self.directory / "run" / "bus"
        self.bus = subprocess.Popen(
            [*self.wrap, "dbus-daemon", f"--config-file={self.directory}/bus.conf", "--nofork"],
            env=self.environment,
            stderr=self.log,
            cwd="/",
            **({} if self.wrap else self.account.switch),
        )
        try:
            wait_for_bus(address)
        except BaseException:
            self.end_bus()
            raise

    def end_bus(self) -> None:
        """End the session bus, if there is one."""
        if self.bus is not None:
            self.bus.terminate()
            self.bus.wait(60)
            self.bus = None
            (self.directory / "run" / "bus").unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        deadline = time.monotonic() + 40
        while any((self.tree / "instance").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.02)  # the daemon releases what was just killed
        self.end_bus()
        deadline = time.monotonic() + 40
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.processes(), self.mounts()
        self.log.close()
        if any(left):
            doing = "\n".join(map(_doing, left[0]))
            self._clear()
            raise AssertionError(f"left behind: {left}\n{doing}\n{self.said()}")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every process of the session."""
        return {
            "HOME": str(self.directory / "home"),
            "USER": self.account.name,
            "LANG": "C.UTF-8",
            "PATH": f"{self.directory}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "XDG_CONFIG_HOME": str(self.directory / "home" / ".config"),
            "FIM_DIR_GLOBAL": str(self.directory / "fim"),
            "FIMD_LINGER": "0.3",
            "FIMD_IDLE": "0.3",
            "TERM": "xterm",
            **self.account.environment,
            **self.settings,
            **(
                {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.directory}/run/bus"}
                if self.has_bus
                else {}
            ),
        }

    @property
    def tree(self) -> Path:
        """The user's part of the runtime tree."""
        return self.directory / "fim" / "app" / f"u{self.account.uid}"

    @property
    def mark(self) -> str:
        """The variable that every process of the session has, and no other."""
        return f"FIM_DIR_GLOBAL={self.directory}/fim"

    def _directory(self, name: str, mode: int) -> None:
        path = self.directory / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, self.account.uid, self.account.gid)

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)

    def adopt(self, source: Path, name: str) -> Path:
        """Copy a file to the session's working directory, as its account's own."""
        target = self.directory / "work" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        os.chown(target, self.account.uid, self.account.gid)
        return target

    def start(
        self,
        *argv: str | os.PathLike[str],
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
        **options: Any,
    ) -> "subprocess.Popen[bytes]":
        """Start a command in the session."""
        process = subprocess.Popen(
            argv,
            env={**self.environment, **(variables or {})},
            cwd=directory or self.directory / "work",
            **{"stdin": subprocess.DEVNULL, **self.account.switch, **options},
        )
        self._started.append(process)
        return process

    def background(
        self, image: Path, script: str, *, command: str = "fim-exec", **options: Any
    ) -> "subprocess.Popen[bytes]":
        """Start a shell script in an image, and wait until it runs."""
        words = (image, command, "sh", "-c", f"echo up; {script}")
        process = self.start(*words, stdout=subprocess.PIPE, **options)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n", self.said()
        return process

    def run(
        self,
        *argv: str | os.PathLike[str],
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
        seconds: float = 60,
        given: bytes | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the session to its end."""
        process = self.start(
            *argv,
            variables=variables,
            directory=directory,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, errors = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(
            argv, process.returncode, os.fsdecode(output), os.fsdecode(errors)
        )

    def output(self, *argv: str | os.PathLike[str], **options: Any) -> str:
        """Run a command that has to succeed in silence on stderr, and return what it printed.

        What each image is told once is left out.
        """
        done = self.run(*argv, **options)
        left = [line for line in done.stderr.splitlines() if not line.endswith(ONCE)]
        assert (done.returncode, left) == (0, []), f"{done}\n{self.said()}"
        return done.stdout

    def objects(self, command: str) -> Any:
        """Return what `fimctl COMMAND --json` prints."""
        return json.loads(self.output("fimctl", command, "--json"))

    def said(self) -> str:
        """Return what the bus and the daemon logged."""
        return (self.directory / "log").read_text(errors="replace")[-8000:]

    def processes(self) -> dict[int, str]:
        """Return the session's processes, apart from the bus: those with its mark."""
        mark = self.mark.encode()
        bus = self.bus.pid if self.bus is not None else None
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in {os.getpid(), bus}:
                continue
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(entry.name)] = words.decode(errors="replace")
            except OSError:
                continue
        return found

    def daemon(self) -> int:
        """Return the daemon's process: not a child that has yet to become another program."""
        named = self.daemons()
        [found] = [pid for pid in named if _parent(pid) not in named]
        return found

    def daemons(self) -> set[int]:
        """Return all processes that are the daemon, or such a child of it."""
        return {pid for pid, words in self.processes().items() if " -m fimd " in words}

    def named(self, name: str) -> list[int]:
        """Return the processes that go by a name, as ps shows it, or by its beginning."""
        found = []
        for pid in self.processes():
            with suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{pid}/comm").read_text().startswith(name):
                    found.append(pid)
        return found

    def one_named(self, name: str) -> int:
        """Return the only process that goes by a name."""
        found = self.named(name)
        assert len(found) == 1, self.processes()
        return found[0]

    def mounts(self) -> list[str]:
        """Return what is mounted below the session's directory, on the host or in its namespace."""
        return mounted_below(self.directory, self.processes())

    def leftovers(self) -> list[str]:
        """Return the directories of layers, stacks and instances that are there."""
        return [
            str(path.relative_to(self.tree))
            for kind in ("layers", "stacks", "instance")
            for path in (self.tree / kind).glob("*")
        ]

    def wait_until_clean(self, seconds: float = 40) -> None:
        """Wait for the linger's end, and check that no mount and no directory is left."""
        deadline = time.monotonic() + seconds
        while (self.mounts() or self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.mounts(), self.leftovers()
        assert left == ([], []), f"left behind: {left}\n{self.said()}"

    def instances_of(self, *processes: "subprocess.Popen[bytes]") -> list[Any]:
        """Wait until the instances are those of the processes; what ended is released later."""
        pids = {process.pid for process in processes}

        def are_theirs() -> Any:
            instances = self.objects("ps")
            return instances if {one["Pid"] for one in instances} == pids else None

        return list(wait_for(are_theirs, what="the instances, and the end of those before"))

    def remove_data(self, data: Path) -> None:
        """Remove a data directory once the daemon has nothing to do in it any more."""
        wait_for(
            lambda: self.objects("ps") == [] and not any((data / "tmp").glob("*")),
            what="the end of what works in the data directory",
        )
        self.output("rm", "-r", data)

    def _clear(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "-l", mount], check=False)


def mounted_below(directory: Path, processes: Iterable[int]) -> list[str]:
    """Return what is mounted below a directory for this process or one of these."""
    found: set[str] = set()
    for pid in ("self", *processes):
        with suppress(OSError):  # it has ended meanwhile
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            found.update(line.split()[4] for line in lines if f" {directory}/" in line)
    return sorted(found)


def byte_by_byte(path: str | os.PathLike[str]) -> str:
    """Return a path as an argument of gdbus: that of glib 2.90 sends anything for b'/path'."""
    return str(list(os.fsencode(path)))


def wait_for_bus(path: Path) -> None:
    """Wait until a bus listens; its socket is there a moment before."""

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(path)) == 0

    wait_for(listens, 60, "the bus")


def wait_for(condition: Any, seconds: float = 40, what: str = "the condition") -> Any:
    """Wait until a function returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.02)
    return value


def _parent(pid: int) -> int | None:
    """Return a process's parent, None where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _doing(pid: int) -> str:
    """Tell what a process that should have ended does: its parent, state and system call."""
    try:
        entry = Path("/proc", str(pid))
        status = (entry / "status").read_text().splitlines()
        shown = [line for line in status if line.startswith(("State:", "PPid:", "Sig", "Shd"))]
        return "\n".join([f"process {pid}", *shown, (entry / "syscall").read_text()])
    except OSError as error:
        return f"process {pid}: {error.strerror}"
