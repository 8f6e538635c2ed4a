"""The main job, by the path that a reader of the README takes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED
from tests.support.program import named
from tests.support.session import Session, wait_for


@pytest.mark.parametrize("overlay", INSTALLED)
def test_two_instances_share_each_layer_and_the_writable_view(
    session: Session, image: Path, overlay: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    first = session.background(image, "sleep 60")
    second = session.background(image, "sleep 60")
    assert session.output(image, "fim-exec", "sh", "-c", "echo hello > /shared") == ""
    assert session.output(image, "fim-root", "cat", "/shared") == "hello\n"

    instances = session.instances_of(first, second)
    assert {instance["Overlay"] for instance in instances} == {overlay}
    assert [layer["References"] for layer in session.objects("layers")] == [2]
    drawn = session.output("fimctl", "stack", image)
    assert f"processes {first.pid}, {second.pid}" in drawn
    assert "2 references" in drawn
    assert (image.parent / ".app.flatimage.data" / "root" / "shared").read_text() == "hello\n"

    for process in (first, second):
        process.kill()
        process.wait()
    session.wait_until_clean()
    assert session.objects("ps") == []


def test_the_process_that_the_user_started_waits_for_the_program_by_bubblewrap(
    session: Session, image: Path
) -> None:
    process = session.background(image, "exec sleep 60")
    [instance] = session.objects("ps")
    assert instance["Pid"] == process.pid
    assert Path(f"/proc/{process.pid}/comm").read_text() == "bwrap\n"
    program = wait_for(lambda: named(process.pid, "sleep"), what="the program")
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    wait_for(lambda: not Path(f"/proc/{program}").exists(), what="the end of the program")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -15 $$"], 143),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["/etc/release"], 126),
    ],
)
def test_the_exit_code_is_the_programs_own(
    session: Session, image: Path, command: list[str], code: int
) -> None:
    assert session.run(image, "fim-exec", *command).returncode == code


def test_streams_arguments_and_working_directory_are_the_callers(
    session: Session, image: Path
) -> None:
    words = ["a b", "", "$HOME", "*", "--", "'", "\n", "é"]
    script = 'cat; printf "[%s]" "$@"; echo err >&2'
    done = session.run(image, "fim-exec", "sh", "-c", script, "sh", *words, given=b"in\n")
    assert done.stdout == "in\n" + "".join(f"[{word}]" for word in words)
    assert done.stderr == "err\n"
    assert session.output(image, "fim-exec", "pwd", directory=Path("/tmp")) == "/tmp\n"
    assert session.output(image, "fim-exec", "command", "-v", "cd") == "cd\n"


def test_root_inside_is_uid_0_and_otherwise_it_is_the_caller(session: Session, image: Path) -> None:
    uid = 0 if os.getuid() == 0 and session.account.uid == 0 else session.account.uid
    assert session.output(image, "fim-exec", "id", "-u") == f"{uid}\n"
    assert session.output(image, "fim-root", "id", "-u") == "0\n"
    assert session.output(image, "fim-exec", "id", "-u", variables={"FIM_ROOT": "1"}) == "0\n"
    assert session.output(image, "fim-root", "sh", "-c", "touch /x && stat -c %u /x") == "0\n"


def test_a_change_outlives_its_instance_and_follows_to_another_overlay(
    session: Session, image: Path
) -> None:
    for overlay in INSTALLED:
        choice = {"FIM_OVERLAY": overlay}
        session.output(image, "fim-exec", "touch", f"/{overlay}", variables=choice)
    listed = session.output(image, "fim-exec", "ls", "/").split()
    assert set(INSTALLED) <= set(listed)


def test_the_image_itself_and_fimctl_do_the_same(session: Session, image: Path) -> None:
    expected = session.output(image, "fim-exec", "cat", "/etc/release")
    assert session.output("fimctl", "app", image, "fim-exec", "cat", "/etc/release") == expected
    assert session.output("fimctl", "run", image, "cat", "/etc/release") == expected
    assert session.output("fimctl", "run", "--root", image, "id", "-u") == "0\n"


def test_without_a_boot_program_words_are_bashs_or_a_program_with_its_words(
    session: Session, image: Path
) -> None:
    assert session.output(image, "-c", "echo $0 $1", "a", "b") == "a b\n"
    script = session.directory / "work" / "stat"
    script.write_text("echo script $1\n")
    assert session.output(image, "stat", "x") == "script x\n"
    script.unlink()
    assert session.run(image, "no-such", "x").returncode == 127
    assert session.output(image, "cat", "/etc/release") == "small\n"


def test_an_instance_ends_with_its_process_group_killed(session: Session, image: Path) -> None:
    process = session.background(image, "sleep 60", start_new_session=True)
    assert len(session.objects("ps")) == 1
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: session.objects("ps") == [], what="the instance's release")
    session.wait_until_clean()


def test_stop_lets_the_program_clean_up(session: Session, image: Path) -> None:
    script = "trap 'echo bye > /said; exit 3' TERM; while :; do sleep 0.1; done"
    process = session.background(image, script)
    session.output("fimctl", "stop", str(process.pid))
    assert process.wait(60) == 3
    assert session.output(image, "fim-exec", "cat", "/said") == "bye\n"


def test_events_are_shown_as_they_happen(session: Session, image: Path) -> None:
    session.output("fimctl", "status")
    monitor = session.start("fimctl", "monitor", "--json", stdout=subprocess.PIPE)
    time.sleep(0.5)
    session.output(image, "fim-exec", "true")
    time.sleep(0.5)
    monitor.send_signal(signal.SIGINT)
    output, _ = monitor.communicate(timeout=60)
    assert b'"event": "added", "kind": "instance"' in output
    assert b'"event": "removed", "kind": "instance"' in output
    assert b'"kind": "layer"' in output
