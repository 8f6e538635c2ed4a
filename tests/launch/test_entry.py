"""The program around every program: what it waits for, what it passes on, what it keeps from."""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fimd.launch.entry import PROGRAM, init, letters, said
from fimd.launch.targets import Seen
from tests.support.session import wait_for

TERMINAL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="it was not compiled")


def ignore_all() -> None:
    for number in TERMINAL:
        signal.signal(number, signal.SIG_IGN)


def exec_(*words: str, signals: tuple[int, ...] = ()) -> list[str | Path]:
    return [PROGRAM, "exec", letters(signals), words[0], *words]


@pytest.mark.parametrize(
    ("signals", "left"), [(TERMINAL, 0), ((signal.SIGINT,), 0b101), ((), 0b111)]
)
def test_only_the_named_signals_are_given_their_default(
    signals: tuple[int, ...], left: int
) -> None:
    command = exec_("/bin/sh", "-c", "grep SigIgn /proc/self/status", signals=signals)
    done = subprocess.run(command, capture_output=True, check=True, preexec_fn=ignore_all)
    assert int(done.stdout.split()[1], 16) == left


def test_words_and_environment_are_passed_on() -> None:
    command = exec_("/bin/sh", "-c", 'echo "$NAME:$0:$1"', "a b", "")
    done = subprocess.run(command, capture_output=True, check=True, env={"NAME": "x=y"})
    assert done.stdout == b"x=y:a b:\n"


def test_a_program_that_is_not_there_is_told() -> None:
    done = subprocess.run(exec_("/no/such"), capture_output=True, check=False)
    assert done.returncode == 127
    assert done.stderr == (
        b"fimd: /no/such can't be executed: the image lacks it, or what it needs.\n"
    )


def test_it_is_nothing_for_users() -> None:
    for words in ((), ("monitor",), ("other", "", "/bin/true", "", "")):
        done = subprocess.run([PROGRAM, *words], capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (127, b"")
        assert b"is not for users" in done.stderr


CALLS = r"""
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void tell(const char *what, long result) { printf("%s=%ld ", what, result ? errno : 0L); }

int main(int count, char **words) {
  (void)count;
  const char *file = words[1];
  gid_t group = 7;
  tell("chown", chown(file, 7, 8) | lchown(file, 7, 8) | fchownat(AT_FDCWD_, file, 7, 8, 0));
  tell("device", mknod("device", S_IFCHR | 0600, makedev(1, 3)) |
                     mknodat(AT_FDCWD_, "device", S_IFBLK | 0600, makedev(1, 3)));
  tell("fifo", mknod("fifo", S_IFIFO | 0600, 0));
  tell("groups", setgroups(1, &group));
  tell("user", setgid(7) | setuid(7) | setresgid(7, 7, 7) | setresuid(7, 7, 7) | setreuid(7, 7));
#ifdef __x86_64__
  /* where 32-bit calls reach it too */
  char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  strcpy(low, file);
  long chowned, made, user;
  __asm__ volatile("int $0x80" : "=a"(chowned) : "a"(212), "b"(low), "c"(7), "d"(8) : "memory");
  strcpy(low, "device");
  __asm__ volatile("int $0x80" : "=a"(made) : "a"(14), "b"(low), "c"(S_IFCHR), "d"(259) : "memory");
  __asm__ volatile("int $0x80" : "=a"(user) : "a"(213), "b"(7) : "memory");
  tell("old", (int)chowned | (int)made | (int)user);
#else
  tell("old", 0);
#endif
  printf("%d\n", getuid());
}
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that makes the calls by which root takes others' ids, and says what came of it."""
    directory = tmp_path_factory.mktemp("calls")
    source, program = directory / "calls.c", directory / "calls"
    source.write_text(CALLS.replace("AT_FDCWD_", "-100"))
    command: list[str | Path] = ["gcc", "-static", "-O1", "-w", "-o", program, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no C program can be made here: {done.stderr[-200:]}")
    return program


def test_root_of_one_id_alone_takes_others_in_appearance(calls: Path, tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", *exec_(str(calls), "file")]
    (tmp_path / "file").touch()
    before = (tmp_path / "file").stat()
    done = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == b"chown=0 device=0 fifo=0 groups=0 user=0 old=0 0\n"
    after = (tmp_path / "file").stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "fifo"}


def test_who_is_no_root_or_has_more_ids_makes_the_calls_in_earnest(
    calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(exec_(str(calls), "file"), capture_output=True, check=True, cwd=tmp_path)
    if os.getuid() == 0:
        assert done.stdout.startswith(b"chown=0 ")
        assert done.stdout.endswith(b" 7\n")
        assert (tmp_path / "file").stat().st_uid == 7
    else:
        assert done.stdout.startswith(b"chown=1 device=1 fifo=0 groups=1 user=1 ")


class Sandbox:
    """Programs started as a launch plan has it, but in a sandbox that shows all of the host."""

    def __init__(self, directory: Path, *, first: bool) -> None:
        self.lock = directory / "lock"
        self.lock.touch()
        user = [] if os.getuid() == 0 else ["--unshare-user"]
        options = ["--unshare-pid", "--as-pid-1"] if first else []
        self._before: list[str | Path] = [
            "/usr/bin/bwrap",
            *user,
            "--dev-bind",
            "/",
            "/",
            *options,
            "--",
            PROGRAM,
        ]

    def command(self, script: str, shown: str = "") -> list[str | Path]:
        before = [PROGRAM, "monitor", "", "", "", *self._before, "init"]
        before[2] = str(len(before))
        return [*before, *init(str(self.lock), TERMINAL, shown), "/bin/bash", "-c", script]

    def run(
        self, script: str, keep: Sequence[int] = (), shown: str = ""
    ) -> "subprocess.CompletedProcess[bytes]":
        command = self.command(script, shown)
        return subprocess.run(command, capture_output=True, timeout=60, check=False, pass_fds=keep)


@pytest.fixture(params=[True, False], ids=["namespace", "host"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path, first=request.param)


@pytest.mark.parametrize(("end", "code"), [("exit 42", 42), ("kill -9 $$", 137), ("exit 0", 0)])
def test_the_exit_code_is_the_programs(sandbox: Sandbox, end: str, code: int) -> None:
    done = sandbox.run(f"echo said; echo told >&2; {end}")
    assert (done.returncode, done.stdout, done.stderr) == (code, b"said\n", b"told\n")


def test_a_sandbox_that_can_not_be_made_is_told_by_bubblewrap(sandbox: Sandbox) -> None:
    command = sandbox.command("echo started")
    command[6:6] = ["--bind", "/no/such", "/x"]
    command[2] = str(int(str(command[2])) + 3)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"bwrap: Can't" in done.stderr


def test_what_it_leaves_holds_neither_its_caller_nor_its_streams_up(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    held, holder = os.pipe()
    go_on = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; : > {tmp_path}/gone"
    script = f"(exec <&- >&- 2>&- {holder}>&-; {go_on}) & echo up; exit 3"
    done = sandbox.run(script, keep=[holder])
    assert (done.returncode, done.stdout) == (3, b"up\n")
    os.close(holder)
    assert os.read(held, 1) == b""
    os.close(held)
    (tmp_path / "go").touch()
    wait_for((tmp_path / "gone").exists, what="what went on in the background")


def test_all_that_is_inside_ends_with_a_monitor_that_is_killed(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, first=True)
    script = f"(setsid sleep 61 & echo $! >&2); exec sleep 61; : {tmp_path}"
    with subprocess.Popen(sandbox.command(script), stderr=subprocess.PIPE) as monitor:
        assert monitor.stderr is not None
        monitor.stderr.readline()
        assert inside(tmp_path)
        monitor.kill()
    wait_for(lambda: not inside(tmp_path), what="the end of all")


def inside(mark: Path) -> list[str]:
    """The processes that have a path among their words, but this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(mark).encode() in word for word in words) and int(entry.name) != os.getpid():
            found.append(entry.name)
    return found


def test_what_is_shown_has_to_be_what_was_found(sandbox: Sandbox, tmp_path: Path) -> None:
    place = tmp_path / "of the host: 7:8"
    place.mkdir()
    facts = place.stat()
    right = Seen(str(place), facts.st_dev, facts.st_ino)
    for shown, code in (
        ([right, right], 0),
        ([right, replace(right, inode=right.inode + 1)], 127),
        ([replace(right, device=right.device + 1)], 127),
        ([replace(right, path=f"{place}-gone")], 127),
    ):
        done = sandbox.run("true", shown=said(shown))
        assert done.returncode == code
        assert (b"is no longer what it was" in done.stderr) == (code != 0)
    for nonsense in ("x", "1:2:3:", "1:2:3:0:", "1:2:3:99:/short", "1:2:3:99999999999999999999:/x"):
        assert sandbox.run("true", shown=nonsense).returncode == 127
