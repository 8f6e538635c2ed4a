"""No program types into its user's terminal, and job control goes on (test_terminal.py)."""

import subprocess
from pathlib import Path

import pytest

from tests.support.session import Session
from tests.support.terminal import Terminal

TYPING = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void tell(const char *how, long result) { printf("%s %ld\n", how, result); }

int main(void) {
  /* where 32-bit calls reach it too */
  char *key = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | WHERE, -1, 0);
  *key = 'x';
  tell("plain", ioctl(0, TIOCSTI, key) ? errno : 0);
  tell("high", syscall(SYS_ioctl, 0, 0x500000000 | TIOCSTI, key) ? errno : 0);
  tell("linux", ioctl(0, TIOCLINUX, key) ? errno : 0);
#ifdef __x86_64__
  int old;
  __asm__ volatile("int $0x80" : "=a"(old) : "a"(54), "b"(0), "c"(TIOCSTI), "d"(key) : "memory");
  tell("old", -old);
  tell("x32", syscall(0x40000000 + 514, 0, TIOCSTI, key) ? errno : 0);
#endif
  struct winsize size;
  tell("size", ioctl(0, TIOCGWINSZ, &size) ? errno : 0);
}
"""
WAYS = ("plain", "high", "linux", "old", "x32")


@pytest.fixture(scope="module")
def typing_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("typing")
    source, program = directory / "typing.c", directory / "typing"
    source.write_text(TYPING.replace("WHERE", "MAP_32BIT" if has_old_calls() else "0"))
    command: list[str | Path] = ["gcc", "-static", "-O1", "-o", program, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no C program can be made here: {done.stderr[-200:]}")
    return program


def has_old_calls() -> bool:
    return subprocess.run(["uname", "-m"], capture_output=True, check=True).stdout == b"x86_64\n"


@pytest.mark.parametrize("words", [("fim-exec",), ("fim-root",), ("fim-instance", "exec", "0")])
def test_no_program_types_into_the_terminal_by_any_of_the_kernels_ways(
    session: Session, image: Path, typing_program: Path, words: tuple[str, ...]
) -> None:
    program = session.adopt(typing_program, "typing")
    session.background(image, "sleep 60", command="fim-root", stderr=subprocess.DEVNULL)
    with Terminal(session.account.uid) as terminal:
        process = terminal.start(session.start, image, *words, program)
        assert process.wait(30) == 0
        said = dict(line.split() for line in terminal.rest().splitlines())
    assert said.pop("size") == "0"
    # 1 is EPERM; a kernel without x32 would say ENOSYS, had the filter not been there before
    assert said == dict.fromkeys(said, "1")
    assert set(said) >= set(WAYS[:3])


def test_what_is_typed_by_hand_would_be_read_here(session: Session, typing_program: Path) -> None:
    """That the test above means something: without a sandbox the kernel lets it through."""
    if Path("/proc/sys/dev/tty/legacy_tiocsti").read_text() != "1\n":
        pytest.skip("this kernel lets nobody type into a terminal")
    program = session.adopt(typing_program, "typing")
    with Terminal(session.account.uid) as terminal:
        assert terminal.start(session.start, program).wait(30) == 0
        assert "plain 0" in terminal.rest()


@pytest.mark.parametrize("words", [("fim-exec",), ("fim-instance", "exec", "0")])
def test_a_filter_is_there_whatever_the_kernel_allows(
    session: Session, image: Path, words: tuple[str, ...]
) -> None:
    session.background(image, "sleep 60")
    said = session.output(image, *words, "grep", "^Seccomp:", "/proc/self/status")
    assert said.split() == ["Seccomp:", "2"]
