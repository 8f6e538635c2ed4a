"""The death of any process of fimd's loses nothing, and the next daemon knows what lives."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED
from tests.support.program import named
from tests.support.session import Session, wait_for

WRITER = (
    "cat /etc/release > /first; n=0; while :; do n=$((n+1)); echo $n > /counter; "
    "cat /etc/release > /new; mv /new /copy; sleep 0.05; done"
)


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    pidfd = os.pidfd_open(pid)  # its parent may reap it at any moment
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: select.select([pidfd], [], [], 0)[0])
    os.close(pidfd)


@pytest.mark.parametrize("overlay", INSTALLED)
def test_programs_go_on_while_the_daemon_is_killed_and_comes_back(
    session: Session, image: Path, overlay: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    programs = [session.background(image, WRITER), session.background(image, "sleep 60")]
    counter = image.parent / ".app.flatimage.data" / "root" / "counter"

    def count() -> int:
        return int(counter.read_text() or "0") if counter.exists() else 0

    wait_for(lambda: count() > 2)
    kill(session.daemon())
    before = count()
    wait_for(lambda: count() > before + 2, what="the program's progress without a daemon")

    instances = session.objects("ps")  # starts the next daemon
    assert {instance["Pid"] for instance in instances} == {program.pid for program in programs}
    assert {instance["State"] for instance in instances} == {"running"}
    assert [layer["References"] for layer in session.objects("layers")] == [2]
    assert session.output(image, "fim-exec", "cat", "/first") == "small\n"  # joins the same stack
    before = count()
    wait_for(lambda: count() > before + 2, what="the program's progress under the next daemon")

    for program in programs:
        program.kill()
        program.wait()
    session.wait_until_clean()


def test_what_ended_while_there_was_no_daemon_is_removed(session: Session, image: Path) -> None:
    lost = session.background(image, "sleep 60")
    kill(session.daemon())
    lost.kill()
    lost.wait()
    assert session.mounts()
    assert session.objects("ps") == []
    session.wait_until_clean()


def test_a_record_that_a_killed_daemon_did_not_finish_keeps_nobody_from_starting(
    session: Session, image: Path
) -> None:
    session.output(image, "fim-exec", "true")
    session.wait_until_clean()
    kill(session.daemon())
    (session.tree / "state" / "layers" / "0123456789abcdef.json.new").write_text("{")
    (session.tree / "state" / "layers" / "0123456789abcdef.json").write_text("[]")
    (session.tree / "stacks" / "0123456789abcdef").mkdir()
    (session.tree / "instance" / "1").mkdir()
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    session.wait_until_clean()


def test_a_layers_process_that_dies_is_noticed_and_the_next_start_mounts_afresh(
    session: Session, image: Path, busybox: Path
) -> None:
    elsewhere = session.adopt(busybox, "elsewhere/busybox")  # a program that needs no layer
    program = session.background(image, f"exec {elsewhere} sleep 60")
    wait_for(lambda: named(program.pid, "busybox"), what="the program")
    kill(session.one_named("layer-"))
    wait_for(lambda: session.objects("ps")[0]["State"] == "failed", what="the failed state")
    done = session.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert f"process {program.pid}, whose filesystem died" in done.stderr
    program.kill()
    program.wait()
    wait_for(lambda: session.objects("ps") == [])
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    session.wait_until_clean()


def test_a_union_that_dies_is_noticed_and_the_next_start_mounts_afresh(
    session: Session, image: Path
) -> None:
    session.output(image, "fim-overlay", "set", "overlayfs")
    program = session.background(image, "sleep 60")
    kill(session.one_named("fuse-overlayfs"))
    wait_for(lambda: "a stack died under its users" in session.said(), what="the notice")
    program.kill()  # unless its root's end was its own
    program.wait()
    wait_for(lambda: session.objects("ps") == [])
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    session.wait_until_clean()


def test_the_kernel_overlay_outlives_its_holder(session: Session, image: Path) -> None:
    first = session.background(image, "echo one > /shared; sleep 60")
    second = session.background(image, "sleep 60")
    [holder] = [pid for pid, words in session.processes().items() if words == "sleep infinity "]
    kill(holder)
    assert session.output(image, "fim-exec", "cat", "/shared") == "one\n"
    first.kill()  # which held it since
    first.wait()
    wait_for(lambda: len(session.objects("ps")) == 1)
    assert session.output(image, "fim-exec", "cat", "/shared") == "one\n"
    second.kill()
    second.wait()
    session.wait_until_clean()


def test_the_kernel_overlay_outlives_its_holder_and_the_daemon_together(
    session: Session, image: Path
) -> None:
    programs = [session.background(image, "echo one > /shared; sleep 60") for _ in range(2)]
    [holder] = [pid for pid, words in session.processes().items() if words == "sleep infinity "]
    kill(session.daemon())
    kill(holder)
    instances = session.instances_of(*programs)
    assert {instance["State"] for instance in instances} == {"running"}
    assert session.output(image, "fim-exec", "cat", "/shared") == "one\n"  # in the same overlay
    refused = session.run(image, "fim-layer", "commit", "layer")
    assert refused.returncode == 125
    assert str(programs[0].pid) in refused.stderr
    for program in programs:
        program.kill()
        program.wait()
    session.wait_until_clean()
    assert session.output(image, "fim-exec", "cat", "/shared") == "one\n"


def test_a_union_that_died_while_there_was_no_daemon_is_noticed_by_the_next(
    session: Session, image: Path, busybox: Path
) -> None:
    session.output(image, "fim-overlay", "set", "overlayfs")
    elsewhere = session.adopt(busybox, "elsewhere/busybox")  # a program that outlives its root
    program = session.background(image, f"exec {elsewhere} sleep 60")
    wait_for(lambda: named(program.pid, "busybox"), what="the program")
    kill(session.daemon())
    kill(session.one_named("fuse-overlayfs"))
    [instance] = session.instances_of(program)
    assert instance["State"] == "failed"
    done = session.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert f"process {program.pid}, whose filesystem died" in done.stderr
    program.kill()
    program.wait()
    session.wait_until_clean()
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"


def test_what_is_in_the_place_of_a_stack_refuses_one_start_at_most(
    session: Session, image: Path
) -> None:
    running = session.background(image, "sleep 60")
    [stack] = (session.tree / "stacks").iterdir()
    running.kill()
    running.wait()
    session.wait_until_clean()
    (stack / "layers").mkdir(parents=True)  # as one that could not be removed
    os.chown(stack, session.account.uid, session.account.gid)
    os.chown(stack / "layers", session.account.uid, session.account.gid)
    done = session.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert "File exists" in done.stderr
    assert "try again" in done.stderr
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    session.wait_until_clean()


def test_an_instance_whose_stack_is_unknown_leaves_nothing(session: Session, image: Path) -> None:
    program = session.background(image, "sleep 60")
    kill(session.daemon())
    [record] = session.tree.glob("state/stacks/*.json")
    record.unlink()
    session.objects("ps")
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_what_workers_are_forked_from_is_replaced_where_it_dies(
    session: Session, image: Path
) -> None:
    session.output("fimctl", "status")
    wait_for(lambda: session.named("origin") != [], what="the origin")
    kill(session.one_named("origin"))
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    program = session.background(image, "sleep 60")
    for name in ("template", "origin"):
        kill(session.one_named(name))
        shown = session.output(image, "fim-exec", "cat", "/etc/release")
        assert shown == "small\n"
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_starts_on_a_mounted_stack_are_looked_after_by_one_process(
    session: Session, image: Path
) -> None:
    program = session.background(image, "sleep 60")
    found, descriptors = set(), set()
    for _ in range(4):
        assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
        wait_for(lambda: len(session.named("spare")) == 1, what="a process that waits for work")
        spare = session.one_named("spare")
        found.add(spare)
        descriptors.add(len(os.listdir(f"/proc/{spare}/fd")))
    assert len(found) == 1
    assert len(descriptors) == 1
    at_once = [session.start(image, "fim-exec", "true") for _ in range(8)]
    assert [one.wait(60) for one in at_once] == [0] * 8
    wait_for(lambda: len(session.named("spare")) == 1, what="the end of the others")
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_a_namespace_that_is_left_leaves_no_process(session: Session, image: Path) -> None:
    for _ in range(3):
        assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
        session.wait_until_clean()
        wait_for(lambda: session.named("template") == [], what="the end of the template")
        assert len(session.named("origin")) == 1


def test_a_stopped_daemon_leaves_running_programs_to_the_next(
    session: Session, image: Path
) -> None:
    program = session.background(image, "sleep 60")
    first = session.daemon()
    began = time.monotonic()
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{first}").exists())
    assert time.monotonic() - began < 10
    [instance] = session.objects("ps")
    assert instance["Pid"] == program.pid
    program.kill()
    program.wait()
    session.wait_until_clean()


def test_a_second_daemon_is_refused_with_the_first_ones_process(session: Session) -> None:
    session.output("fimctl", "status")
    done = session.run("fimd")
    assert done.returncode == os.EX_CONFIG
    assert f"another fimd (process {session.daemon()}) owns {session.tree}" in done.stderr


def test_prune_unmounts_what_lingers(
    new_session: Callable[..., Session], busybox_image: Path
) -> None:
    session = new_session(FIMD_LINGER="60")
    image = session.adopt(busybox_image, "app.flatimage")
    session.output(image, "fim-exec", "true")
    wait_for(lambda: session.objects("layers")[0]["State"] == "idle")
    assert session.output("fimctl", "prune") == "1 idle layer unmounted\n"
    assert session.objects("layers") == []
    session.wait_until_clean(1)


def test_shutdown_ends_everything_where_it_is_to(session: Session, image: Path) -> None:
    program = session.background(image, "trap 'exit 5' TERM; while :; do sleep 0.1; done")
    first = session.daemon()
    session.output("fimctl", "shutdown")
    wait_for(lambda: not Path(f"/proc/{first}").exists())
    assert program.poll() is None
    session.output("fimctl", "shutdown", "--kill")
    assert program.wait(60) == 5
    wait_for(lambda: session.processes() == {}, what="the end of every process")
    assert session.mounts() == []


LEAVING = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
os.ftruncate(lock, 0)
print("leaving", flush=True)
time.sleep(2)
"""


def test_a_daemon_waits_for_one_that_is_leaving(session: Session) -> None:
    session.output("fimctl", "status")
    session.output("fimctl", "shutdown")
    wait_for(lambda: session.processes() == {}, what="the daemon's end")
    assert (session.tree / "state" / "lock").read_text() == ""
    words = (session.account.python, "-c", LEAVING, session.tree / "state" / "lock")
    process = session.start(*words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"leaving\n"
    began = time.monotonic()
    session.output("fimctl", "status")
    assert time.monotonic() - began > 1


def test_a_command_right_after_a_shutdown_finds_the_next_daemon(session: Session) -> None:
    for _ in range(5):
        session.output("fimctl", "shutdown")
        session.output("fimctl", "desktop", "list")
