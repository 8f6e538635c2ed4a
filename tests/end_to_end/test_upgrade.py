"""An upgrade from fimd 0.1 with instances running, which mounted everything on the host."""

import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import PROJECT
from tests.support.overlays import INSTALLED
from tests.support.session import Session, wait_for

FORMER = "b1af93cd12c5b69534d0d19785bb5e12e9349b09"
"""The last state of the tree of 0.1."""
WRITER = (
    "n=0; while :; do n=$((n+1)); echo $n > /counter; cat /etc/release > /copy; sleep 0.05; done"
)


@pytest.fixture(scope="session")
def former(open_directory: Path) -> Path:
    """The code of fimd 0.1."""
    git = ["git", "-c", "safe.directory=*", "-C", str(PROJECT)]
    asked = subprocess.run(
        [*git, "cat-file", "-e", f"{FORMER}^{{commit}}"], capture_output=True, check=False
    )
    if asked.returncode != 0:
        pytest.skip(f"the history here does not reach back to {FORMER[:7]}")
    directory = open_directory / "former"
    directory.mkdir()
    archive = subprocess.run(
        [*git, "archive", FORMER, "fimd", "fimctl", "dbus", "systemd"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)
    return directory


@pytest.fixture
def old(new_session: Callable[..., Session], former: Path) -> Session:
    """A session in which the programs are those of 0.1."""
    session = new_session()
    path = ":".join(filter(None, [str(former), session.account.environment.get("PYTHONPATH")]))
    for name in ("fimctl", "fimd"):
        words = shlex.join(["env", f"PYTHONPATH={path}", session.account.python, "-P", "-m", name])
        (session.directory / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    return session


def end_daemon(session: Session, number: signal.Signals) -> None:
    os.kill(session.daemon(), number)
    wait_for(lambda: not session.daemons(), what="the end of the daemon")


def upgrade(session: Session) -> None:
    """End the daemon, whose instances go on, and have the next one be today's."""
    end_daemon(session, signal.SIGTERM)
    (session.directory / "bin" / "fimctl").write_text(session.account.installed("fimctl"))
    (session.directory / "bin" / "fimd").write_text(session.account.script("fimd"))


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def on_the_host(session: Session) -> list[str]:
    """What is mounted below the runtime tree for everybody to see."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if f" {session.tree}/" in line]


def kept(session: Session) -> set[str]:
    """What is in the runtime tree."""
    return {path.name for path in session.tree.iterdir()}


@pytest.mark.parametrize("casefold", ["off", "on"])
@pytest.mark.parametrize("overlay", INSTALLED)
def test_instances_of_a_former_version_go_on_and_leave_nothing(
    old: Session, busybox_image: Path, overlay: str, casefold: str
) -> None:
    if (overlay, casefold) == ("bwrap", "on") and "unionfs" not in INSTALLED:
        pytest.skip("0.1 has its view over unionfs, which is not installed")
    session = old
    image = session.adopt(busybox_image, "app.flatimage")
    other = session.adopt(busybox_image, "other.flatimage")
    session.output(image, "fim-overlay", "set", overlay)
    session.output(image, "fim-casefold", casefold)
    first = session.background(image, WRITER)
    second = session.background(image, "sleep 1000")
    assert (session.tree / "output").is_dir()
    counter = image.parent / ".app.flatimage.data" / "root" / "counter"

    def count() -> int:
        return int(counter.read_text() or "0") if counter.exists() else 0

    upgrade(session)
    # another image starts, also one that has the same layers
    assert session.output(other, "fim-exec", "cat", "/etc/release") == "small\n"
    assert (
        session.output(
            image, "fim-exec", "cat", "/etc/release", variables={"FIM_DIR_DATA": f"{image}.data"}
        )
        == "small\n"
    )
    refused = session.run(image, "fim-exec", "true")
    assert refused.returncode == 125
    assert "started by an earlier fimd: end that first" in refused.stderr
    told = refused.stderr.partition("in use by process ")[2].partition(", started")[0].split(", ")
    assert {str(first.pid), str(second.pid)} <= set(told)
    refused = session.run(image, "fim-layer", "commit", "layer")
    assert refused.returncode == 125
    assert "in use by process" in refused.stderr
    before = count()
    wait_for(lambda: count() > before + 2, what="the program's progress")
    assert (first.poll(), second.poll()) == (None, None)
    # the next daemon finds the same
    end_daemon(session, signal.SIGKILL)
    end(first)
    refused = session.run(image, "fim-exec", "true")
    assert f"is in use by process {second.pid}, started by an earlier fimd" in refused.stderr
    waiting = session.start(
        "fimctl", "run", "--wait", "30", image, "cat", "/etc/release", stdout=subprocess.PIPE
    )
    end(second)
    output, _ = waiting.communicate(timeout=30)
    assert (waiting.returncode, output) == (0, b"small\n")
    assert counter.exists()
    wait_for(lambda: on_the_host(session) == [], what="the end of what was mounted on the host")
    session.wait_until_clean()
    own = {"bin", "sbin", "layers", "stacks", "instance", "state", "lost", "bus"}
    wait_for(lambda: kept(session) == own, what="a tidy tree")
    assert list((session.tree / "lost").iterdir()) == []
    wait_for(
        lambda: not any("sleep infinity" in words for words in session.processes().values()),
        what="the end of what holds namespaces",
    )


def test_doctor_tells_of_instances_of_a_former_version(old: Session, busybox_image: Path) -> None:
    image = old.adopt(busybox_image, "app.flatimage")
    program = old.background(image, "sleep 1000")
    upgrade(old)
    assert old.objects("ps") == []
    told = " ".join(old.run("fimctl", "doctor").stdout.split())
    assert f"earlier instances process {program.pid} was started by an earlier fimd" in told
    end(program)
    old.wait_until_clean()


def test_nothing_is_left_of_a_former_version_that_had_no_instances(
    old: Session, busybox_image: Path
) -> None:
    image = old.adopt(busybox_image, "app.flatimage")
    assert old.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    end_daemon(old, signal.SIGKILL)
    assert on_the_host(old) != []
    (old.directory / "bin" / "fimctl").write_text(old.account.installed("fimctl"))
    (old.directory / "bin" / "fimd").write_text(old.account.script("fimd"))
    assert old.objects("ps") == []
    wait_for(lambda: on_the_host(old) == [], what="the end of what was mounted on the host")
    wait_for(lambda: not (old.tree / "output").exists(), what="a tidy tree")
    assert list((old.tree / "lost").iterdir()) == []


def test_a_former_daemon_that_runs_keeps_its_tree(old: Session, busybox_image: Path) -> None:
    image = old.adopt(busybox_image, "app.flatimage")
    program = old.background(image, "sleep 1000")
    daemon = old.daemon()
    refused = old.run(old.account.python, "-P", "-m", "fimd")
    assert refused.returncode != 0
    assert f"another fimd (process {daemon}) owns" in refused.stderr
    end(program)
    old.wait_until_clean(40)
