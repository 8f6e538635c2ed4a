"""No program changes what the kernel does with others by /sys."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.session import Session

_PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


@pytest.fixture
def group(session: Session) -> Iterator[Path]:
    """A control group that is the account's, as systemd has one for each user."""
    places = [Path(place) for place in _PLACES if Path(place, "cgroup.controllers").exists()]
    if os.getuid() != 0 or not places:
        pytest.skip("only root may make a control group, where there are those of version 2")
    group = places[0] / f"fimd-test-{uuid4().hex}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error.strerror}")
    try:
        for path in (group, *group.iterdir()):
            os.chown(path, session.account.uid, session.account.gid)
        if not (group / "cgroup.kill").exists():
            pytest.skip("this kernel ends no control group as a whole")
        yield group
    finally:
        group.rmdir()


@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_a_program_ends_no_control_group_of_its_user(
    session: Session, image: Path, group: Path, command: str
) -> None:
    victim = session.start("sleep", "60")
    try:
        (group / "cgroup.procs").write_text(str(victim.pid))
        words = ("sh", "-c", f"echo 1 > {group}/cgroup.kill")
        done = session.run(image, command, *words)
        assert "Read-only file system" in done.stderr
        assert victim.poll() is None
        assert session.run(*words).returncode == 0  # who may do it outside
        assert victim.wait(10) != 0
    finally:
        victim.kill()
        victim.wait()


def test_root_of_a_machine_changes_nothing_of_it_from_inside(session: Session, image: Path) -> None:
    knob = Path("/sys/kernel/mm/transparent_hugepage/defrag")
    if session.account.uid != 0 or not knob.exists():
        pytest.skip("it takes root, and a kernel with huge pages")
    words = ("fim-exec", "sh", "-c", f"(: >> {knob}) || echo kept")
    done = session.run(image, *words)
    assert (done.stdout, "Read-only file system" in done.stderr) == ("kept\n", True)


def test_the_namespace_itself_may_write_to_none_of_it(session: Session, image: Path) -> None:
    program = session.background(image, "sleep 60")
    table = session.output("fimctl", "enter", "cat", "/proc/self/mountinfo")
    mounts = [line.split() for line in table.splitlines()]
    system = [facts for facts in mounts if f"{facts[4]}/".startswith("/sys/")]
    assert system
    for facts in system:
        assert {"ro", "nosuid", "nodev"} <= set(facts[5].split(",")), facts
    program.kill()
    program.wait()
