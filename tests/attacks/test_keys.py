"""No program gets at the keys that the kernel holds for its user (keyrings(7))."""

import subprocess
from pathlib import Path

import pytest

from tests.support.session import Session

KEYS = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SESSION -3L

int main(int count, char **words) {
  if (count > 1) {  /* begin a session with a key, and become a program in it */
    if (syscall(SYS_keyctl, 1, 0L) < 0) return 77;
    if (syscall(SYS_add_key, "user", "fimd-test", "canary", 6L, SESSION) < 0) return 77;
    execv(words[1], words + 1);
    return 1;
  }
  long key = syscall(SYS_keyctl, 10, SESSION, "user", "fimd-test", 0L);
  if (key < 0) printf("search %d\n", errno);
  char text[16] = "";
  if (syscall(SYS_keyctl, 11, key, text, 15L) > 0) printf("read %s\n", text);
  if (syscall(SYS_request_key, "user", "fimd-test", 0L, SESSION) < 0) printf("request %d\n", errno);
  if (syscall(SYS_add_key, "user", "more", "text", 4L, SESSION) < 0) printf("add %d\n", errno);
#ifdef __x86_64__
  int old;
  __asm__ volatile("int $0x80" : "=a"(old) : "a"(288), "b"(0), "c"(SESSION), "d"(0) : "memory");
  if (old < 0) printf("old %d\n", -old);
  if (syscall(0x40000000 + SYS_keyctl, 0, SESSION, 0L) < 0) printf("x32 %d\n", errno);
#endif
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    source, made = directory / "keys.c", directory / "keys"
    source.write_text(KEYS)
    command: list[str | Path] = ["gcc", "-static", "-O1", "-o", made, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no C program can be made here: {done.stderr[-200:]}")
    return made


@pytest.mark.parametrize("words", [("fim-exec",), ("fim-root",), ("fim-instance", "exec", "0")])
def test_a_key_of_its_users_session_is_not_there_inside(
    session: Session, image: Path, program: Path, words: tuple[str, ...]
) -> None:
    keys = session.adopt(program, "keys")
    outside = session.run(keys, keys)
    if outside.returncode == 77:
        pytest.skip("this kernel holds no keys")
    assert outside.stdout.startswith("read canary\n")
    session.background(image, "sleep 60")
    said = dict(line.split() for line in session.output(keys, image, *words, keys).splitlines())
    assert set(said) >= {"search", "request", "add"}
    assert said == dict.fromkeys(said, "38")  # ENOSYS
