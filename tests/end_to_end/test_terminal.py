"""Programs on a terminal: Ctrl-C, Ctrl-\\ and a hang-up are the program's affair."""

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.session import Session, wait_for

CTRL_C, CTRL_BACKSLASH = b"\x03", b"\x1c"


class Terminal:
    """A terminal with a program of an image in its foreground."""

    def __init__(self) -> None:
        self.leader, self.follower = pty.openpty()
        self._said = b""

    def run(
        self, session: Session, *words: str | Path, how: str = "exec"
    ) -> "subprocess.Popen[bytes]":
        process = session.start(
            *("setsid", "--ctty", "sh", "-c", f'{how} "$@"; exit $?', "sh", *words),
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
        )
        os.close(self.follower)
        self.wait_for(b"up")
        return process

    def type(self, keys: bytes) -> None:
        os.write(self.leader, keys)

    def wait_for(self, word: bytes) -> None:
        while word not in self._said:
            self._said += os.read(self.leader, 4096)  # EIO where the program ends without it

    def hang_up(self) -> None:
        os.close(self.leader)
        self.leader = -1

    def close(self) -> None:
        if self.leader >= 0:
            os.close(self.leader)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def answering(signal: str) -> str:
    """A script that has its own answer to a signal, and takes a moment for it."""
    return f"trap 'sleep 0.3; echo caught; exit 3' {signal}; echo up; while :; do sleep 0.05; done"


@pytest.mark.parametrize("overlay", ["bwrap", "overlayfs"])
@pytest.mark.parametrize(("key", "signal"), [(CTRL_C, "INT"), (CTRL_BACKSLASH, "QUIT")])
def test_a_program_may_answer_a_key_itself(
    session: Session, image: Path, terminal: Terminal, overlay: str, key: bytes, signal: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    process = terminal.run(session, image, "fim-exec", "sh", "-c", answering(signal))
    terminal.type(key)
    terminal.wait_for(b"caught")
    assert process.wait(60) == 3


def test_a_program_without_an_answer_ends_by_ctrl_c(
    session: Session, image: Path, terminal: Terminal
) -> None:
    process = terminal.run(session, image, "fim-exec", "sh", "-c", "echo up; sleep 60")
    terminal.type(CTRL_C)
    assert process.wait(60) == 130
    wait_for(lambda: session.objects("ps") == [], what="the instance's end")


def test_a_program_may_answer_a_hang_up_itself(
    session: Session, image: Path, terminal: Terminal
) -> None:
    script = (
        "trap 'sleep 0.3; echo kept > /work; exit 3' HUP; echo up; while :; do sleep 0.05; done"
    )
    terminal.run(session, image, "fim-exec", "sh", "-c", script, how="")
    terminal.hang_up()
    wait_for(lambda: session.objects("ps") == [], what="the instance's end")
    assert session.output(image, "fim-exec", "cat", "/work") == "kept\n"


def test_a_program_that_has_a_terminal_to_itself_ends_with_it(
    session: Session, image: Path, terminal: Terminal
) -> None:
    process = terminal.run(session, image, "fim-exec", "sh", "-c", "echo up; sleep 60")
    terminal.hang_up()
    process.wait(60)
    wait_for(lambda: session.objects("ps") == [], what="the instance's end")


def test_a_signal_that_was_ignored_stays_ignored(
    session: Session, image: Path, terminal: Terminal
) -> None:
    script = "echo up; read line; echo answered"
    process = terminal.run(session, image, "fim-exec", "sh", "-c", script, how="trap '' INT; exec")
    terminal.type(CTRL_C)
    terminal.type(b"\n")
    terminal.wait_for(b"answered")
    assert process.wait(60) == 0


def test_what_runs_in_a_namespace_of_its_own_has_its_signals_too(
    session: Session, image: Path, terminal: Terminal
) -> None:
    session.output(image, "fim-unshare", "set", "pid")
    process = terminal.run(session, image, "fim-root", "sh", "-c", answering("INT"))
    terminal.type(CTRL_C)
    terminal.wait_for(b"caught")
    assert process.wait(60) == 3


def test_a_process_without_a_terminal_ends_by_a_signal_of_its_own(
    session: Session, image: Path
) -> None:
    process = session.background(image, "sleep 60", start_new_session=True)
    process.send_signal(2)
    assert process.wait(60) in {-2, 130}
    wait_for(lambda: session.objects("ps") == [], what="the instance's end")


@pytest.mark.parametrize("namespace", ["ipc", "pid"])
def test_a_program_ends_with_its_process_however_that_ends(
    session: Session, image: Path, namespace: str
) -> None:
    session.output(image, "fim-unshare", "set", namespace)
    process = session.background(image, "sleep 60")
    process.kill()
    wait_for(lambda: not any("sleep 60" in line for line in session.processes().values()))


def test_a_program_outlives_the_shell_that_started_it(session: Session, image: Path) -> None:
    program = "touch up; until [ -e /go ]; do sleep 0.05; done; echo kept > /work"
    shell = '"$1" fim-exec sh -c "$2" > log 2>&1 & until [ -e up ]; do sleep 0.05; done'
    session.output("sh", "-c", shell, "sh", image, program)
    assert len(session.objects("ps")) == 1
    session.output(image, "fim-exec", "touch", "/go")
    wait_for(lambda: session.objects("ps") == [], what="the program's end")
    assert session.output(image, "fim-exec", "cat", "/work") == "kept\n"
