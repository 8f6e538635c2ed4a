"""fim-instance: which instances run, and programs inside of them."""

import os
import pty
import signal
from pathlib import Path

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.session import Session, wait_for


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


def test_instances_are_listed_by_their_start(app: Commands) -> None:
    assert app.output("fim-instance", "list") == ""
    processes = [app.session.background(app.image, "sleep 60") for _ in range(2)]
    other = {"FIM_DIR_DATA": str(app.session.directory / "work" / "other")}
    app.session.background(app.image, "sleep 60", variables=other)
    listed = [f"{index}:{process.pid}" for index, process in enumerate(processes)]
    assert app.output("fim-instance", "list").splitlines() == listed
    assert len(app.session.output(app.image, "fim-instance", "list", variables=other).split()) == 1
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    left = f"0:{processes[1].pid}\n"
    wait_for(lambda: app.output("fim-instance", "list") == left, 1, "the end of the first")


@pytest.mark.parametrize("overlay", ["bwrap", "unionfs"])
@pytest.mark.parametrize("unshare", ["", "all"])
def test_a_program_runs_inside_of_an_instance(app: Commands, overlay: str, unshare: str) -> None:
    app.silent("fim-overlay", "set", overlay)
    if unshare:
        app.silent("fim-unshare", "add", unshare)
    work = app.session.directory / "work"
    app.session.background(app.image, "sleep 60", variables={"VARIABLE": "of the instance"})
    app.session.background(app.image, "sleep 60", command="fim-root")
    uid = app.session.account.uid

    def run(index: int, script: str, **options: bytes) -> str:
        words = ("fim-instance", "exec", str(index), "sh", "-c", script)
        variables = {"VARIABLE": "of the caller"}
        return app.session.output(app.image, *words, variables=variables, **options)

    assert run(0, "id -u; pwd; echo $VARIABLE; cat", given=b"in") == (
        f"{uid}\n{work}\nof the caller\nin"
    )
    assert run(1, "id -u; whoami") == "0\nroot\n"
    assert run(0, "cat /etc/release; ls /usr") == "small\n"
    run(0, "echo seen > /written")
    assert run(1, "cat /written") == "seen\n"
    kinds = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")
    links = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
    pid = int(app.output("fim-instance", "list").partition(":")[2].split()[0])
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert run(0, links).split() == [os.readlink(f"/proc/{child}/ns/{kind}") for kind in kinds]


def test_its_rights_are_those_of_the_instance(app: Commands) -> None:
    script = "grep -E '^(Cap|NoNewPrivs|Uid|Gid)' /proc/self/status"
    for command in ("fim-exec", "fim-root"):
        process = app.session.background(app.image, "sleep 60", command=command)
        words = ("sh", "-c", script)
        expected = app.output(command, *words)
        assert app.output("fim-instance", "exec", "0", *words) == expected
        process.kill()
        process.wait()
        wait_for(lambda: app.output("fim-instance", "list") == "", what="its end")


@pytest.mark.parametrize("unshare", ["", "pid"])
def test_the_exit_code_and_the_terminal_are_the_programs(app: Commands, unshare: str) -> None:
    if unshare:
        app.silent("fim-unshare", "add", unshare)
    app.session.background(app.image, "sleep 60")

    def code(*words: str) -> int:
        return app.session.run(app.image, "fim-instance", "exec", "0", *words).returncode

    assert code("true") == 0
    assert code("sh", "-c", "exit 42") == 42
    assert code("sh", "-c", "kill -15 $$") in {143, -15}
    leader, terminal = pty.openpty()
    words = ("fim-instance", "exec", "0", "sh", "-c", "test -t 0 && test -t 1 && test -t 2")
    process = app.session.start(app.image, *words, stdin=terminal, stdout=terminal, stderr=terminal)
    assert process.wait(30) == 0
    os.close(leader)
    os.close(terminal)


def test_a_program_that_is_not_there(app: Commands) -> None:
    app.session.background(app.image, "sleep 60")
    for words in (["no-such-program"], ["/etc/release"], ["command", "-v", "sh"], [""]):
        done = app.session.run(app.image, "fim-instance", "exec", "0", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert texts(done.stderr) == ["Could not start PID, program not found?"]


def test_wrong_words_are_told_in_order(app: Commands) -> None:
    assert app.wrong("fim-instance") == ["Missing op for 'fim-instance' (<exec|list>)"]
    assert app.wrong("fim-instance", "foo") == ["Invalid instance operation"]
    assert app.wrong("fim-instance", "list", "a", "b") == [
        "Trailing arguments for fim-instance: ['a','b',]"
    ]
    assert app.wrong("fim-instance", "exec") == ["Missing 'id' argument for 'fim-instance'"]
    for index in ("foo", "-1"):
        said = app.wrong("fim-instance", "exec", index, "true")
        assert said == ["Id argument must be a digit"]
    assert app.wrong("fim-instance", "exec", "0") == ["Missing 'cmd' argument for 'fim-instance'"]
    assert app.refused("fim-instance", "exec", "0", "true")[0] == "No instances are running"
    app.session.background(app.image, "sleep 60")
    for index in ("1", "9" * 30):
        said = app.refused("fim-instance", "exec", index, "true")
        assert said[0] == "Instance index out of bounds"
