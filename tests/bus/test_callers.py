"""Who calls: known by its process, and told apart where that is in a sandbox."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from dbus_next.signature import Variant

from fimd.base import namespaces
from fimd.base.errors import AccessDeniedError
from fimd.bus.callers import Callers, check_listener
from fimd.bus.connection import Connection
from fimd.bus.server import ObjectServer
from tests.bus.conftest import NAME, ROOT, Probe

DENIED = "org.flatimage.Fim1.Error.AccessDenied"
UNDUMPABLE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(4, 0); os.read(0, 1)"


async def ask(bus: str, member: str, *wrap: str, words: Sequence[str] = ()) -> tuple[int, str]:
    """Call a method of the server by gdbus, started in some way."""
    command = [
        *(*wrap, "gdbus", "call", "--address", bus, "--dest", NAME),
        *("--object-path", ROOT, "--method", member, *words),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    "wrap",
    [
        ("unshare", "-Ur"),
        ("unshare", "-U", "--map-current-user"),
        ("unshare", "-Urpf"),
        ("bwrap", "--unshare-user", "--bind", "/", "/", "--proc", "/proc"),
        ("bwrap", "--unshare-pid", "--bind", "/", "/", "--proc", "/proc"),
    ],
    ids=["root of its own", "itself", "processes of its own", "sandbox", "sandbox of root"],
)
async def test_a_process_in_a_sandbox_learns_what_there_is_and_nothing_more(
    server: ObjectServer, bus: str, wrap: tuple[str, ...]
) -> None:
    if os.getuid() != 0 and wrap[1].startswith("-Ur"):
        pytest.skip("a bus refuses who calls itself root and is not")
    code, said = await ask(bus, f"{Probe.name}.Echo", *wrap, words=["hello"])
    assert code != 0
    assert DENIED in said
    assert "do this outside of it" in said
    for member in ("ObjectManager.GetManagedObjects", "Properties.GetAll"):
        words = [Probe.name] if member.endswith("GetAll") else []
        code, said = await ask(bus, f"org.freedesktop.DBus.{member}", *wrap, words=words)
        assert (code, DENIED in said) == (1, True)
    assert (await ask(bus, "org.freedesktop.DBus.Peer.Ping", *wrap))[0] == 0
    code, said = await ask(bus, "org.freedesktop.DBus.Introspectable.Introspect", *wrap)
    assert (code, Probe.name in said) == (0, True)


async def test_a_process_outside_may_call(server: ObjectServer, bus: str) -> None:
    assert await ask(bus, f"{Probe.name}.Echo", words=["hello"]) == (0, "('hello',)\n")


@pytest.mark.parametrize("wrap", [(), ("unshare", "-Ur"), ("unshare", "-Urpf")])
def test_a_process_that_shows_nothing_of_itself_is_told_apart_as_well(
    wrap: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() == 0:  # who may see everything
        monkeypatch.setattr(namespaces, "_is_shared", _forbidden)
    process = subprocess.Popen(
        [
            *wrap,
            sys.executable,
            "-c",
            f"{UNDUMPABLE.replace('os.read', 'print(flush=True); os.read')}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    try:
        assert namespaces.is_confined(_innermost(process.pid)) == bool(wrap)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def _forbidden(_pid: int, _kind: str) -> bool:
    raise PermissionError


def _innermost(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = file.read().split()
    return _innermost(int(children[0])) if children else pid


class Bus:
    """A bus that knows a process as it is told."""

    def __init__(self, pid: int, pidfd: int | None = None) -> None:
        self.asked = 0
        self._pid, self._pidfd = pid, pidfd

    async def ask_bus_for_files(self, *_: Any) -> tuple[Any, list[int]]:
        self.asked += 1
        facts = {"ProcessID": Variant("u", self._pid), "UnixUserID": Variant("u", os.getuid())}
        if self._pidfd is None:
            return [facts], []
        return [{**facts, "ProcessFD": Variant("h", 0)}], [os.dup(self._pidfd)]


@pytest.mark.parametrize(
    ("wrap", "forks", "reason"),
    [
        ((), False, None),
        ((), True, "can't be told: its process has ended"),
        (("unshare", "-Ur"), False, "is in a sandbox"),
        (("unshare", "-Ur"), True, "can't be told: its process has ended"),
    ],
)
def test_a_bus_that_a_sandbox_could_be_is_none(
    tmp_path: Path, wrap: tuple[str, ...], forks: bool, reason: str | None
) -> None:
    script = (
        "import os, socket, sys, time\n"
        "one = socket.socket(socket.AF_UNIX)\n"
        "one.bind(sys.argv[1])\n"
        "one.listen()\n"
        "print(os.getpid(), flush=True)\n"
        "if sys.argv[2] == 'True' and os.fork(): os._exit(0)\n"
        "sys.stdin.read()\n"
    )
    path = str(tmp_path / "bus")
    with (
        subprocess.Popen(
            [*wrap, sys.executable, "-c", script, path, str(forks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
        socket.socket(socket.AF_UNIX) as client,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        if forks:
            process.wait()
        client.connect(path)
        if reason is None:
            check_listener(client, may_be_gone=False)
        else:
            with pytest.raises(AccessDeniedError, match=reason):
                check_listener(client, may_be_gone=False)
        if forks:
            check_listener(client, may_be_gone=True)


@pytest.fixture
async def sleeper() -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A process."""
    process = subprocess.Popen(["sleep", "100"])  # noqa: ASYNC220 - it takes no time
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("is_given", [True, False])
async def test_a_caller_is_known_until_its_process_ends(
    sleeper: "subprocess.Popen[bytes]", is_given: bool
) -> None:
    pidfd = os.pidfd_open(sleeper.pid)
    bus = Bus(sleeper.pid, pidfd if is_given else None)
    callers = Callers(cast("Connection", bus))
    before = set(os.listdir("/proc/self/fd"))
    found = await callers.find(":1")
    assert (found.pid, found.uid, found.confined) == (sleeper.pid, os.getuid(), False)
    assert await callers.find(":1") is found
    assert bus.asked == 1
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(AccessDeniedError, match="its process has ended"):
        await callers.find(":1")
    with pytest.raises(AccessDeniedError, match="can't be identified"):
        await callers.find(":2")
    assert set(os.listdir("/proc/self/fd")) == before
    os.close(pidfd)


async def test_a_number_that_became_another_processs_is_nobody(
    sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.clock_gettime", lambda _clock: 1.0)  # it was asked long before
    callers = Callers(cast("Connection", Bus(sleeper.pid)))
    with pytest.raises(AccessDeniedError, match="has ended"):
        await callers.find(":1")


async def test_remembering_callers_takes_no_descriptors(sleeper: "subprocess.Popen[bytes]") -> None:
    callers = Callers(cast("Connection", Bus(sleeper.pid)))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        await callers.find(f":{number}")
    assert len(os.listdir("/proc/self/fd")) == before
