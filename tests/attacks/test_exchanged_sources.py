"""What an image binds is exchanged between the daemon's look and bubblewrap's: nothing is run.

Bubblewrap takes parts of the host by their names. A program in another sandbox that may write to a
directory above one, such as /tmp, can put something else in its place, if it comes at the moment.
"""

import os
import shlex
from pathlib import Path

import pytest

from tests.support.session import Session


def meanwhile(session: Session, script: str) -> None:
    """Have something happen right before bubblewrap makes a sandbox."""
    bwrap = session.directory / "bin" / "bwrap"
    bwrap.write_text(f'#!/bin/sh\n{script}\nexec /usr/bin/bwrap "$@"\n')
    bwrap.chmod(0o755)


@pytest.fixture
def secret(session: Session) -> Path:
    """A directory of the user's with a file that no sandbox is to show."""
    directory = session.directory / "home" / ".ssh"
    directory.mkdir()
    (directory / "key").write_text("canary\n")
    for path in (directory, directory / "key"):
        os.chown(path, session.account.uid, session.account.gid)
    return directory


@pytest.mark.parametrize("part", ["runtime tree", "keys", "another directory"])
@pytest.mark.parametrize("place", ["itself", "above"])
def test_a_directory_that_leads_elsewhere_by_then_is_not_shown(
    session: Session, image: Path, secret: Path, part: str, place: str
) -> None:
    work = session.directory / "work"
    shown = work / "open" / "shown"
    session.run("mkdir", "-p", shown)
    session.run("sh", "-c", 'echo innocent > "$0/key"', shown)
    session.output(image, "fim-bind", "add", "rw", shown, "/shown")
    look = (image, "fim-exec", "cat", "/shown/key", "/shown/holder.json")
    assert "innocent" in session.run(*look).stdout
    target = session.tree / "state" if part == "runtime tree" else secret
    exchanged = shown if place == "itself" else shown.parent
    if place == "above":
        session.run("mkdir", "aside")
        session.run("ln", "-s", target, work / "aside" / "shown")
        target = work / "aside"
    quoted = [shlex.quote(str(path)) for path in (exchanged, target)]
    put = "mkdir {0}; echo canary > {0}/key" if part == "another directory" else "ln -s {1} {0}"
    meanwhile(session, ("mv {0} {0}-old;" + put).format(*quoted))
    done = session.run(*look)
    assert done.stdout == ""
    assert done.returncode != 0
    if not (part == "another directory" and place == "above"):  # then there is no such thing
        assert "is no longer what it was when this start began: start it again" in done.stderr


def test_a_file_that_is_another_by_then_is_not_shown(
    session: Session, image: Path, secret: Path
) -> None:
    shown = session.directory / "work" / "shown"
    session.run("sh", "-c", 'echo innocent > "$0"', shown)
    session.output(image, "fim-bind", "add", "ro", shown, "/shown")
    look = (image, "fim-exec", "cat", "/shown")
    assert session.output(*look) == "innocent\n"
    meanwhile(session, f"ln -sf {shlex.quote(str(secret / 'key'))} {shlex.quote(str(shown))}")
    done = session.run(*look)
    assert (done.returncode, done.stdout) == (127, "")
    assert "/shown is no longer what it was when this start began" in done.stderr


def test_what_another_mount_hides_is_nobody_s_to_look_at(session: Session, image: Path) -> None:
    work = session.directory / "work"
    for name in ("one", "two", "two/part"):
        session.run("mkdir", work / name)
    session.output(image, "fim-bind", "add", "ro", work / "one", "/shown/part")
    session.output(image, "fim-bind", "add", "ro", work / "two", "/shown")
    assert session.output(image, "fim-exec", "ls", "/shown") == "part\n"


def test_a_place_that_a_program_cannot_come_to_is_no_obstacle(
    session: Session, image: Path
) -> None:
    if os.getuid() != 0 or session.account.uid == 0:
        pytest.skip("it takes a directory of root's, and a plain user")
    shown = session.directory / "work" / "shown"
    session.run("mkdir", shown)
    upper = image.parent / f".{image.name}.data" / "root" / "closed"
    session.run("mkdir", "-p", upper)
    session.output(image, "fim-bind", "add", "ro", shown, "/closed/shown")
    assert session.output(image, "fim-exec", "echo", "well") == "well\n"
    upper.chmod(0)  # its own, which it could open again
    refused = session.run(image, "fim-exec", "sh", "-c", "chmod 700 /closed; ls /closed")
    assert (refused.returncode, refused.stdout) == (127, "")
    assert "/closed/shown is no longer what it was" in refused.stderr
    os.chown(upper, 0, 0)
    done = session.run(image, "fim-exec", "echo", "well")
    assert (done.returncode, done.stdout) == (0, "well\n")
