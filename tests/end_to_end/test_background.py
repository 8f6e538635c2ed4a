"""Programs that an image's program leaves: they go on, count, and end with what started them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Account
from tests.support.overlays import INSTALLED
from tests.support.program import program_of
from tests.support.session import Session, wait_for

WRITER = (
    "n=0; until [ -e /stop ]; do n=$((n+1)); echo $n >> /log || echo refused >> /tmp/{0}; "
    "sleep 0.05; done"
)


def leave(session: Session, image: Path, script: str, **variables: str) -> Any:
    """Start a program that leaves a script in the background; return its instance."""
    words = ("sh", "-c", f"setsid sh -c '{script}' </dev/null >/dev/null 2>&1 & exit 3")
    done = session.run(image, "fim-exec", *words, variables=variables)
    assert done.returncode == 3, done
    [instance] = wait_for(lambda: in_the_background(session), what="the background")
    return instance


def in_the_background(session: Session) -> list[Any]:
    return [one for one in session.objects("ps") if one["State"] == "background"]


def gone(session: Session) -> None:
    wait_for(lambda: session.objects("ps") == [], what="the instance's end")


def running(session: Session, words: str) -> list[int]:
    return [pid for pid, said in session.processes().items() if said.strip().endswith(words)]


@pytest.mark.parametrize("overlay", INSTALLED)
def test_what_is_left_goes_on_and_no_commit_takes_its_files_away(
    session: Session, image: Path, overlay: str
) -> None:
    refusals = session.directory.name
    session.output(image, "fim-overlay", "set", overlay)
    leave(session, image, WRITER.format(refusals))
    refused = session.run(image, "fim-layer", "commit", "layer")
    assert refused.returncode == 125
    writers = [  # and the command that it starts just now
        pid for pid, words in session.processes().items() if words.startswith("sh -c n=0; ")
    ]
    assert f"process {session.objects('ps')[0]['Pid']} (in its background: " in refused.stderr
    assert any(str(writer) in refused.stderr for writer in writers)
    session.output(image, "fim-exec", "sh", "-c", "tail -n 1 /log; touch /stop")
    gone(session)
    lines = session.output(image, "fim-exec", "cat", "/log").split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert not Path("/tmp", refusals).exists()
    session.output(image, "fim-layer", "commit", "layer")
    assert session.output(image, "fim-exec", "cat", "/log").split() == lines


def test_its_starter_returns_at_once_and_the_instance_is_listed_as_what_it_is(
    session: Session, image: Path
) -> None:
    began = time.monotonic()
    instance = leave(session, image, "sleep 30")
    assert time.monotonic() - began < 20
    assert [one["Pid"] for one in session.objects("ps")] == [instance["Pid"]]
    assert session.output(image, "fim-instance", "list") == ""
    assert "background" in session.output("fimctl", "ps")
    session.output("fimctl", "stop", str(instance["Pid"]))


def test_stop_asks_what_is_left_and_ends_all_of_it(session: Session, image: Path) -> None:
    asked = 'trap "echo asked > /asked; exit" TERM; while :; do sleep 0.05; done'
    deaf = 'trap "" TERM; while :; do sleep 0.07; done'
    script = f"sh -c '{asked}' & sh -c '{deaf}' & wait"
    words = ("sh", "-c", f"({script}) </dev/null >/dev/null 2>&1 & sleep 0.3")
    assert session.run(image, "fim-exec", *words).returncode == 0
    [instance] = wait_for(lambda: in_the_background(session), what="the background")
    session.output("fimctl", "stop", "--timeout", "1", str(instance["Pid"]))
    gone(session)
    assert not running(session, "sleep 0.07")
    assert session.output(image, "fim-exec", "cat", "/asked") == "asked\n"


@pytest.mark.parametrize("permission", ["", "processes"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_ends_with_the_users_process_when_that_is_killed(
    session: Session, image: Path, permission: str, number: int
) -> None:
    if permission:
        session.output(image, "fim-perms", "set", permission)
    process = session.background(image, "setsid sleep 61 & sleep 62; true")
    wait_for(lambda: running(session, "sleep 61") and running(session, "sleep 62"))
    process.send_signal(number)
    process.wait()
    wait_for(lambda: not running(session, "sleep 61") and not running(session, "sleep 62"))
    gone(session)


def test_it_ends_so_without_a_daemon_too(session: Session, image: Path) -> None:
    process = session.background(image, "setsid sleep 61 & sleep 62; true")
    os.kill(session.daemon(), signal.SIGKILL)
    process.kill()
    process.wait()
    wait_for(lambda: not running(session, "sleep 61") and not running(session, "sleep 62"))
    gone(session)
    session.wait_until_clean()


@pytest.mark.parametrize("overlay", INSTALLED)
def test_the_next_daemon_takes_over_what_was_left(
    session: Session, image: Path, overlay: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    instance = leave(session, image, WRITER.format("none"))
    os.kill(session.daemon(), signal.SIGKILL)
    assert [one["Pid"] for one in session.objects("ps")] == [instance["Pid"]]
    wait_for(lambda: in_the_background(session), what="the state")
    assert session.run(image, "fim-layer", "commit", "layer").returncode == 125
    session.output(image, "fim-exec", "touch", "/stop")
    gone(session)
    session.wait_until_clean()


def test_what_ended_while_there_was_no_daemon_is_released_by_the_next(
    session: Session, image: Path
) -> None:
    leave(session, image, "sleep 3")
    daemon = session.daemon()
    os.kill(daemon, signal.SIGSTOP)
    wait_for(lambda: not running(session, "sleep 3"), what="the end of what was left")
    os.kill(daemon, signal.SIGKILL)
    gone(session)
    session.wait_until_clean()


@pytest.mark.parametrize("overlay", INSTALLED)
def test_a_program_that_has_entered_counts(session: Session, image: Path, overlay: str) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    instance = session.background(image, "until [ -e /end ]; do sleep 0.05; done")
    words = ("sh", "-c", "echo up; read line; echo $line > /kept; cat /kept; exit 9")
    entered = session.start(
        *(image, "fim-instance", "exec", "0", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert entered.stdout is not None
    assert entered.stdout.readline() == b"up\n"
    session.output(image, "fim-exec", "touch", "/end")
    assert instance.wait(60) == 0
    wait_for(lambda: in_the_background(session), what="the background")
    assert session.run(image, "fim-layer", "commit", "layer").returncode == 125
    said, _ = entered.communicate(b"line\n", timeout=60)
    assert (said, entered.returncode) == (b"line\n", 9)
    gone(session)
    assert session.output(image, "fim-exec", "cat", "/kept") == "line\n"


def test_one_that_was_entered_ends_with_the_users_process(session: Session, image: Path) -> None:
    instance = session.background(image, "sleep 60")
    entered = session.start(image, "fim-instance", "exec", "0", "sleep", "61")
    wait_for(lambda: "sleep 61 " in session.processes().values())
    instance.kill()
    assert entered.wait(60) == 137
    gone(session)


def test_with_the_hosts_processes_what_is_left_counts_too(session: Session, image: Path) -> None:
    session.output(image, "fim-perms", "add", "processes")
    assert session.output(image, "fim-perms", "list") == "processes\n"
    script = "until [ -e /stop ]; do sleep 0.05; done; echo done > /log"
    instance = leave(session, image, script)
    seen = session.output(image, "fim-exec", "sh", "-c", "cd /proc; echo [0-9]*")
    assert str(os.getpid()) in seen.split()
    refused = session.run(image, "fim-layer", "commit", "layer")
    assert f"process {instance['Pid']} (in its background: " in refused.stderr
    session.output(image, "fim-exec", "touch", "/stop")
    gone(session)
    assert session.output(image, "fim-exec", "cat", "/log") == "done\n"
    instance = leave(session, image, "sleep 63")
    session.output("fimctl", "stop", str(instance["Pid"]))
    assert not running(session, "sleep 63")


def test_all_does_not_stand_for_the_hosts_processes(session: Session, image: Path) -> None:
    session.output(image, "fim-perms", "set", "all")
    assert "processes" not in session.output(image, "fim-perms", "list").split()


def test_where_no_proc_can_be_mounted_a_program_runs_with_one_warning(
    new_session: Callable[..., Session], account: Account, busybox_image: Path
) -> None:
    if account.uid == 0 or os.getuid() != 0:
        pytest.skip("root may always mount one, and only root can cover a part of the present one")
    # as containers do it: what lies under a mount in /proc can't be uncovered by mounting another
    script = (
        'awk \'$3 == "proc" && $2 != "/proc" { print $2 }\' /proc/mounts | xargs -r umount -l; '
        'mount --bind /dev/null /proc/interrupts; exec "$@"'
    )
    cover = ["unshare", "--mount", "sh", "-c", script]
    become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--"]
    session = new_session(wrap=[*cover, "sh", *become])
    image = session.adopt(busybox_image, "app.flatimage")
    done = session.run(image, "fim-exec", "sh", "-c", "sleep 5 >/dev/null 2>&1 & echo up")
    assert (done.returncode, done.stdout) == (0, "up\n"), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert "no process namespace can be had here" in done.stderr
    assert in_the_background(session)
    gone(session)


def test_a_program_sees_no_process_of_the_host(session: Session, image: Path) -> None:
    process = session.background(image, "sleep 60")
    seen = session.output(image, "fim-exec", "ps", "-o", "pid,args")
    assert "-m fimd" not in seen
    assert "sleep 60" not in seen
    program = program_of(process.pid)
    others = f"kill -9 {process.pid} {program} {session.daemon()} {os.getpid()}"
    assert session.run(image, "fim-exec", "sh", "-c", others).returncode != 0
    assert [one["Pid"] for one in session.objects("ps")] == [process.pid]


def test_what_ends_in_a_moment_is_not_left_to_the_next_daemon(
    session: Session, image: Path
) -> None:
    session.output(image, "fim-exec", "sh", "-c", "sleep 0.2 >/dev/null 2>&1 &")
    os.kill(session.daemon(), signal.SIGTERM)
    wait_for(lambda: not session.processes(), what="the end of all")
    assert session.mounts() == []
