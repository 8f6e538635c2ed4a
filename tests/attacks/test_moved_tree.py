"""No program moves the runtime tree away, by a directory above it, to put another in its place."""

import os
from pathlib import Path

import pytest

from fimd.launch import programs
from tests.support.image_commands import Commands
from tests.support.session import Session, wait_for


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_what_the_tree_lies_in_can_not_be_renamed(app: Commands, command: str) -> None:
    app.output(command, "true")
    before = [place.stat().st_ino for place in (app.session.tree, *app.session.tree.parents)]
    above = [place for place in app.session.tree.parents if len(place.parts) > 2]
    for place in above:
        done = app.session.run(app.image, command, "mv", str(place), f"{place}.moved")
        assert done.returncode != 0, place
    assert [p.stat().st_ino for p in (app.session.tree, *app.session.tree.parents)] == before


def test_a_program_of_the_same_size_and_time_is_not_taken_for_the_daemons(
    tmp_path: Path,
) -> None:
    genuine, target = tmp_path / "genuine", tmp_path / "entry"
    genuine.write_bytes(b"genuine")
    target.write_bytes(b"malware")
    facts = genuine.stat()
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    programs._place(genuine, target)
    assert target.read_bytes() == b"genuine"


def test_what_the_tree_lies_in_may_be_locked_and_the_next_daemon_starts(app: Commands) -> None:
    app.output("fim-exec", "true")
    app.session.output("fimctl", "shutdown")
    wait_for(lambda: not app.session.processes(), what="the daemon's end")
    places = [app.session.tree.parent.parent, app.session.tree.parent]
    for place in reversed(places):
        place.chmod(0)
    app.output("fim-exec", "true")
    assert [place.stat().st_mode & 0o7777 for place in places] == [0o1777, 0o1777]
