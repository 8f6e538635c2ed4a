"""A mount whose process has stopped hangs nobody but the programs that look into it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.overlays import needs_unionfs
from tests.support.session import Session, wait_for

TIMEOUT = 2.0
"""Seconds that a mount may take in these tests: the setting mount_timeout."""
STUCK = {
    # what stops: the overlay, the case-insensitive view, the beginning of the process's name
    "layer": ("bwrap", "off", "layer-"),
    "layer under a union": ("unionfs", "off", "layer-"),
    "layer under fuse-overlayfs": ("overlayfs", "off", "layer-"),
    "unionfs": ("unionfs", "off", "unionfs"),
    "fuse-overlayfs": ("overlayfs", "off", "fuse-overlayfs"),
    "view": ("overlayfs", "on", "casefold-"),
}
KINDS = [
    pytest.param(what, marks=needs_unionfs if overlay == "unionfs" else ())
    for what, (overlay, _, _) in STUCK.items()
]


@pytest.fixture
def patient(new_session: Callable[..., Session]) -> Session:
    """A session that waits for its mounts a short time only, and keeps idle ones for long."""
    return new_session(FIMD_MOUNT_TIMEOUT=f"{TIMEOUT:g}", FIMD_LINGER="60")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Check that something does not take longer; generous, where the machine is busy."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def prepared(session: Session, busybox_image: Path, what: str) -> tuple[Path, str]:
    """An image whose stack has what is to be stopped, and that process's name."""
    overlay, casefold, name = STUCK[what]
    image = session.adopt(busybox_image, "app.flatimage")
    session.output(image, "fim-overlay", "set", overlay)
    session.output(image, "fim-casefold", casefold)
    return image, name


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def check_that_it_starts_afresh(session: Session, image: Path) -> None:
    """Run the image again, and check that nothing is left after it."""
    wait_for(lambda: session.objects("ps") == [], what="the instance's release")
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    wait_for(lambda: session.objects("ps") == [], what="the second instance's release")
    assert session.output("fimctl", "prune")
    session.wait_until_clean()


@pytest.mark.parametrize("what", KINDS)
def test_it_hangs_neither_the_daemon_nor_a_start_and_the_next_mounts_afresh(
    patient: Session, busybox_image: Path, busybox: Path, what: str
) -> None:
    image, name = prepared(patient, busybox_image, what)
    elsewhere = patient.adopt(busybox, "elsewhere/busybox")  # a program that outlives its root
    program = patient.background(image, f"exec {elsewhere} sleep 100")
    wait_for(lambda: patient.named("busybox"), what="the program")
    victim = patient.one_named(name)
    os.kill(victim, signal.SIGSTOP)
    with at_most(5):
        assert len(patient.objects("ps")) == 1
        patient.output("fimctl", "status")
        assert str(program.pid) in patient.output("fimctl", "stack", image)
    with at_most(TIMEOUT + 20):
        done = patient.run(image, "fim-exec", "true")
    assert done.returncode == 125
    reasons = ("did not answer within 2 s and was given up", "whose filesystem died: end that")
    assert reasons[what.startswith("layer")] in done.stderr
    wait_for(lambda: ended(victim), what="the end of what hung")
    program.kill()
    program.wait()
    check_that_it_starts_afresh(patient, image)


def test_an_idle_layer_that_hangs_is_mounted_afresh_by_the_next_start(
    patient: Session, busybox_image: Path
) -> None:
    image, name = prepared(patient, busybox_image, "layer")
    patient.output(image, "fim-exec", "true")
    victim = patient.one_named(name)
    os.kill(victim, signal.SIGSTOP)
    with at_most(TIMEOUT + 20):
        assert patient.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    assert ended(victim)


@pytest.mark.parametrize("what", ["layer", "fuse-overlayfs", "view"])
def test_a_program_that_waits_for_it_can_be_stopped(
    patient: Session, busybox_image: Path, what: str
) -> None:
    image, name = prepared(patient, busybox_image, what)
    script = "while :; do cat /etc/release /bin/busybox > /dev/null; ls -R /usr > /dev/null; done"
    program = patient.background(image, script)
    victim = patient.one_named(name)
    os.kill(victim, signal.SIGSTOP)
    time.sleep(0.3)  # it runs into the mount
    with at_most(15):
        patient.output("fimctl", "stop", str(program.pid), "--timeout", "1")
    program.wait(60)
    check_that_it_starts_afresh(patient, image)


@pytest.mark.parametrize("what", ["layer under fuse-overlayfs", "view"])
def test_the_daemon_leaves_in_time_and_the_next_one_goes_on(
    patient: Session, busybox_image: Path, what: str
) -> None:
    image, name = prepared(patient, busybox_image, what)
    program = patient.background(image, "sleep 100")
    other = patient.adopt(busybox_image, "other.flatimage")
    patient.output(other, "fim-exec", "true")  # its layer is idle
    for pid in patient.named(name):
        os.kill(pid, signal.SIGSTOP)
    daemon = patient.daemon()
    with at_most(10):
        os.kill(daemon, signal.SIGTERM)
        wait_for(lambda: ended(daemon), what="the daemon's end")
    with at_most(5):
        [instance] = patient.objects("ps")
    assert instance["Pid"] == program.pid
    with at_most(20):
        patient.output("fimctl", "shutdown", "--kill", "--timeout", "1")
        wait_for(lambda: patient.processes() == {}, seconds=15, what="the end of every process")
    program.wait(60)
    assert patient.mounts() == []


@pytest.mark.parametrize("name", ["origin", "template"])
def test_what_workers_are_forked_from_is_replaced_where_it_hangs(
    patient: Session, busybox_image: Path, name: str
) -> None:
    image, _ = prepared(patient, busybox_image, "layer")
    patient.output("fimctl", "status")
    running = [patient.background(image, "sleep 60")] if name == "template" else []
    wait_for(lambda: patient.named(name) != [], what=f"the {name}")
    found = patient.one_named(name)
    os.kill(found, signal.SIGSTOP)
    with at_most(30):
        done = patient.run(image, "fim-exec", "cat", "/etc/release")
    if name == "template":
        assert done.returncode == 125
        assert "was not ready within 10 s" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "small\n")
    assert ended(found)
    for program in running:
        program.kill()
        program.wait()
    assert patient.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
