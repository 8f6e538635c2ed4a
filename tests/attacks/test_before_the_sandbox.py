"""Nothing that an image stores, or a program inside writes, is executed outside of the sandbox."""

import os
from pathlib import Path

import pytest

from tests.support.session import Session

PROGRAMS = ("bwrap", "nsenter", "sh", "env", "unshare")


def trap(path: Path) -> str:
    """A program that tells where it was run; where it can't write it is no trap."""
    return f"#!/bin/sh\nreadlink /proc/self/ns/mnt >> {path}\n"


@pytest.fixture
def canary(session: Session) -> Path:
    """A file that nobody makes but what is run outside."""
    return session.directory / "home" / "canary"


@pytest.mark.parametrize("overlay", ["bwrap", "unionfs", "overlayfs"])
def test_programs_that_a_sandbox_leaves_on_its_path_are_not_executed_outside(
    session: Session, image: Path, canary: Path, overlay: str
) -> None:
    leave = f"mkdir -p /left; for n in {' '.join(PROGRAMS)}; do for d in $1 /left; do " + (
        'printf %s "$0" > $d/$n; chmod 755 $d/$n; done; done 2>/dev/null; true'
    )
    variables = {"FIM_OVERLAY": overlay}
    words = ("fim-exec", "sh", "-c", leave, trap(canary), str(session.tree / "bin"))
    session.run(image, *words, variables=variables)
    upper = image.parent / f".{image.name}.data" / "root" / "left"
    path = f"{upper}:/left:{session.tree}/bin"
    session.output(image, "fim-env", "set", f"PATH={path}:$PATH")
    session.run(image, "fim-exec", "true", variables=variables)
    assert not canary.exists()  # a program of that name inside is never called


def test_a_stored_word_runs_no_command_outside(session: Session, image: Path, canary: Path) -> None:
    code = f"$(readlink /proc/self/ns/mnt >> {canary}; echo x)"
    for key in ("X", "HOME", "SHELL", "PATH", "PS1", f"K{code}", "LD_LIBRARY_PATH"):
        session.output(image, "fim-env", "add", f"{key}={code}")
    session.output(image, "fim-bind", "add", "rw", f"/tmp{code}", "/bound")
    session.output(image, "fim-bind", "add", "ro", "/etc", f"/b`{code[2:-1]}`")
    for command in (["fim-exec", "true"], ["fim-root", "true"], ["fim-env", "list"], []):
        session.run(image, *command)
    session.output(image, "fim-boot", "set", code)
    session.run(image)
    assert os.readlink("/proc/self/ns/mnt") not in canary.read_text()  # /tmp is shared


def test_what_bubblewrap_is_started_with_is_the_callers_alone(
    session: Session, image: Path, canary: Path
) -> None:
    spy = session.directory / "work" / "spy"
    spy.mkdir(mode=0o755)
    for name in ("bwrap", "nsenter"):
        program = spy / name
        program.write_text(f"#!/bin/sh\nenv -0 > {session.directory}/run/{name}\nexit 3\n")
        program.chmod(0o755)
    session.output(image, "fim-env", "set", "LD_PRELOAD=/evil.so", "BASH_ENV=/x", "STORED=1")
    variables = {"PATH": f"{spy}:{session.environment['PATH']}", "MINE": "yes"}
    assert session.run(image, "fim-exec", "true", variables=variables).returncode == 3
    [seen] = [
        path for path in (session.directory / "run").iterdir() if path.name in {"bwrap", "nsenter"}
    ]
    outside = dict(item.split("=", 1) for item in seen.read_text().split("\0") if item)
    assert outside.items() >= variables.items()
    assert {"LD_PRELOAD", "BASH_ENV", "STORED", "LD_LIBRARY_PATH", "FIM_PID"}.isdisjoint(outside)


def test_patterns_tell_nothing_of_the_hosts_files(session: Session, image: Path) -> None:
    (session.directory / "home" / "secret-name").touch()
    pattern = f"{session.directory}/home/secret*"
    session.output(image, "fim-env", "set", f"X={pattern}")
    assert session.output(image, "fim-exec", "sh", "-c", 'echo "$X"') == f"{pattern}\n"
