"""Who needs a data directory that others use in another way is refused, or waits for them."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.session import Session, wait_for


def waiting(session: Session, *words: str | Path) -> "subprocess.Popen[bytes]":
    """Start a command that waits, and return once it does."""
    process = session.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.0)
    assert process.poll() is None, process.communicate()
    return process


def test_who_waits_starts_as_soon_as_the_data_directory_is_free(
    session: Session, image: Path
) -> None:
    first = session.background(image, "sleep 60")
    words = ("run", "--wait", "30", "--overlay", "overlayfs", image, "echo", "started")
    second = waiting(session, "fimctl", *words)
    before = time.monotonic()
    first.kill()
    assert second.communicate(timeout=60) == (b"started\n", b"")
    assert second.returncode == 0
    assert time.monotonic() - before < 10  # far from the 30 s, on any machine


def test_the_wait_ends_when_its_time_is_over_and_names_who_was_there(
    session: Session, image: Path
) -> None:
    first = session.background(image, "sleep 60")
    before = time.monotonic()
    done = session.run("fimctl", "run", "--wait", "0.5", "--overlay", "overlayfs", image, "true")
    assert time.monotonic() - before >= 0.5
    assert done.returncode == 125
    assert f"by process {first.pid}" in done.stderr
    assert "waited for 0.5 s" in done.stderr


def test_who_waits_keeps_nobody_else_from_what_they_do(session: Session, image: Path) -> None:
    first = session.background(image, "sleep 60")
    second = waiting(
        session, "fimctl", "run", "--wait", "30", "--overlay", "overlayfs", image, "echo", "late"
    )
    assert session.output(image, "fim-exec", "echo", "joined") == "joined\n"
    other = session.adopt(image, "other.flatimage")
    assert session.output(other, "fim-exec", "echo", "elsewhere") == "elsewhere\n"
    first.kill()
    assert second.communicate(timeout=60)[0] == b"late\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_wait_is_over_when_who_waits_goes(
    session: Session, image: Path, number: signal.Signals
) -> None:
    first = session.background(image, "sleep 60")
    second = waiting(
        session, "fimctl", "run", "--wait", "60", "--overlay", "overlayfs", image, "true"
    )
    second.send_signal(number)
    second.communicate(timeout=60)
    assert second.returncode != 0
    first.kill()
    first.wait()
    session.wait_until_clean()
    assert session.objects("ps") == []


def test_a_commit_waits_for_the_instances_to_end(session: Session, image: Path) -> None:
    first = session.background(image, "echo kept > /kept; echo done; sleep 60")
    assert first.stdout is not None
    first.stdout.readline()
    refused = session.run("fimctl", "layer", "commit", image, "binary")
    assert refused.returncode == 125
    assert str(first.pid) in refused.stderr
    commit = waiting(session, "fimctl", "layer", "commit", "--wait", "60", image, "binary")
    first.kill()
    output, errors = commit.communicate(timeout=30)
    assert commit.returncode == 0, errors
    assert b"a layer of" in output
    assert session.output(image, "fim-exec", "cat", "/kept") == "kept\n"


def test_ctrl_c_ends_the_wait_of_a_commit_and_nothing_is_committed(
    session: Session, image: Path
) -> None:
    first = session.background(image, "echo kept > /kept; echo done; sleep 60")
    assert first.stdout is not None
    first.stdout.readline()
    size = image.stat().st_size
    commit = waiting(session, "fimctl", "layer", "commit", "--wait", "60", image, "binary")
    commit.send_signal(signal.SIGINT)
    commit.communicate(timeout=60)
    assert commit.returncode == 130
    first.kill()
    first.wait()
    session.wait_until_clean()
    assert image.stat().st_size == size


def test_a_start_waits_for_a_commit(session: Session, image: Path) -> None:
    size = image.stat().st_size
    fill = "head -c 20000000 /dev/urandom > /large"
    session.output(image, "fim-exec", "sh", "-c", fill)
    commit = session.start("fimctl", "layer", "commit", image, "binary", stdout=subprocess.PIPE)
    wait_for(lambda: image.stat().st_size > size, 20, what="the commit's first block")
    done = session.run("fimctl", "run", "--wait", "60", image, "wc", "-c", "/large")
    assert (done.returncode, done.stdout) == (0, "20000000 /large\n"), done
    assert commit.wait(30) == 0


@pytest.mark.parametrize("mode", ["binary", "layer"])
def test_whoever_starts_while_a_commit_ends_sees_what_was_committed(
    session: Session, image: Path, mode: str
) -> None:
    for number in range(3):
        session.output(image, "fim-exec", "sh", "-c", f"echo {number} > /count")
        commit = session.start("fimctl", "layer", "commit", image, mode, stdout=subprocess.PIPE)
        while commit.poll() is None:
            # the kernel itself does not execute a file that somebody is writing to
            done = session.run("fimctl", "app", image, "fim-exec", "cat", "/count")
            assert done.stdout == f"{number}\n" or "is going on" in done.stderr, done
        session.output(image, "fim-exec", "cat", "/count")


@pytest.mark.parametrize("seconds", ["-1", "nan", "1e9", "soon"])
def test_what_is_no_time_is_refused(session: Session, image: Path, seconds: str) -> None:
    done = session.run("fimctl", "run", f"--wait={seconds}", image, "true")
    assert done.returncode not in {0, 1}
    assert "--wait" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_daemon_refuses_what_is_no_time(session: Session, image: Path) -> None:
    call = ("busctl", f"--address=unix:path={session.directory}/run/bus", "call")
    manager = ("org.flatimage.Fim1", "/org/flatimage/Fim1", "org.flatimage.Fim1.Manager")
    path = os.fsencode(image)
    arguments = [str(len(path)), *map(str, path), "1", "wait", "d", "1e9"]
    done = session.run(*call, *manager, "StartInstance", "aya{sv}", *arguments)
    assert done.returncode != 0
    assert "is not between 0 and 86400" in done.stderr
