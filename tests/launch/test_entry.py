import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fimd.launch.entry import program, words
from tests.support.session import wait_for

TERMINAL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    content = program()
    if content is None:
        pytest.skip("there is no entry program for this machine")
    path = tmp_path / "entry"
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def ignore_all() -> None:
    for number in TERMINAL:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("signals", "left"), [(TERMINAL, 0), ((signal.SIGINT,), 0b101), ((), 0b111)]
)
def test_only_the_named_signals_are_given_their_default(
    entry: Path, signals: tuple[int, ...], left: int
) -> None:
    command: list[str | Path] = [
        entry,
        *words(0, signals),
        "/bin/sh",
        "-c",
        "grep SigIgn /proc/self/status",
    ]
    done = subprocess.run(command, capture_output=True, check=True, preexec_fn=ignore_all)
    assert int(done.stdout.split()[1], 16) == left


@pytest.mark.parametrize("tied", [False, True])
def test_words_and_environment_are_passed_on(entry: Path, tied: bool) -> None:
    parent = os.getpid() if tied else 0
    command: list[str | Path] = [
        entry,
        *words(parent, ()),
        "/bin/sh",
        "-c",
        'echo "$NAME:$0:$1"',
        "a b",
        "",
    ]
    done = subprocess.run(command, capture_output=True, check=True, env={"NAME": "x=y"})
    assert done.stdout == b"x=y:a b:\n"


def test_a_program_that_is_not_there_is_told(entry: Path) -> None:
    done = subprocess.run([entry, *words(0, ()), "/no/such"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (
        127,
        b"fimd: the image has no shell to run programs.\n",
    )


def test_nothing_starts_whose_parent_has_ended(entry: Path) -> None:
    command: list[str | Path] = [entry, *words(os.getpid() + 1, ()), "/bin/echo", "started"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (127, b"")
    assert done.stderr == b"fimd: the process that was to run this one has ended.\n"


def test_the_program_ends_with_its_parent(entry: Path) -> None:
    code = (
        "import os, subprocess, sys;"
        "child = subprocess.Popen([sys.argv[1], str(os.getpid()), '', '/bin/sleep', '60']);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code, entry], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not runs(child), what="the program's end")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_there_is_none_for_a_machine_that_is_not_known() -> None:
    assert program("vax") is None
    assert (program("aarch64") or b"").startswith(b"\x7fELF")
