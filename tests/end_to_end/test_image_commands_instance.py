"""fim-instance: which instances run, and programs inside of them."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.program import program_of
from tests.support.session import Session, wait_for
from tests.support.terminal import Terminal


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


@pytest.mark.parametrize("overlay", ["bwrap", "overlayfs"])
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
    child = program_of(pid)
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
    with Terminal(app.session.account.uid) as terminal:
        script = "test -t 0 && test -t 1 && test -t 2 && exit 7"
        process = terminal.start(
            app.session.start, app.image, "fim-instance", "exec", "0", "sh", "-c", script
        )
        assert process.wait(30) == 7


@pytest.mark.parametrize("unshare", ["", "pid"])
@pytest.mark.parametrize("words", [("fim-exec",), ("fim-instance", "exec", "0")])
def test_a_shell_has_the_users_terminal_with_its_size_and_job_control(
    app: Commands, words: tuple[str, ...], unshare: str
) -> None:
    if unshare:
        app.silent("fim-unshare", "add", unshare)
    app.session.background(app.image, "sleep 60")
    with Terminal(app.session.account.uid) as terminal:
        terminal.resize(33, 101)
        shell = terminal.start(app.session.start, app.image, *words, "sh", "-i")

        def type_in(line: str) -> None:
            terminal.wait_for("> ")
            terminal.type(line + "\n")

        terminal.type("PS1='ready''> '\n")
        type_in("busybox stty size")
        terminal.wait_for(r"\n33 101\r\n")
        terminal.resize(44, 55)
        type_in("busybox stty size")
        terminal.wait_for(r"\n44 55\r\n")
        script = 'trap "busybox stty size; exit" WINCH; echo wa""iting; while :; do sleep 0.1; done'
        type_in(f"sh -c '{script}'")
        terminal.wait_for("waiting")
        terminal.resize(66, 77)
        terminal.wait_for(r"\n66 77\r\n")
        type_in("sh -c 'echo wa\"\"iting; exec sleep 60'")
        terminal.wait_for("waiting")
        terminal.type("\x03")
        type_in("echo co''de $?")
        assert terminal.wait_for(r"code (\d+)")[1] == "130"
        script = 'trap "echo conti""nued" CONT; echo wa""iting; while :; do sleep 0.1; done'
        type_in(f"sh -c '{script}'")
        terminal.wait_for("waiting")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        type_in("fg")
        terminal.wait_for("continued")
        terminal.type("\x03")
        type_in("echo co''de $?")
        assert terminal.wait_for(r"code (\d+)")[1] == "130"
        type_in("exit 5")
        assert shell.wait(15) == 5, terminal.rest()
        assert "can't access tty" not in terminal.rest()


def test_what_a_user_presses_reaches_the_program_and_the_instance_goes_on(app: Commands) -> None:
    app.silent("fim-unshare", "add", "pid")
    instance = app.session.background(app.image, "sleep 60")
    words = (app.image, "fim-instance", "exec", "0", "sh", "-c")
    for key, code in (("\x03", 130), ("\x1c", 131)):
        with Terminal(app.session.account.uid) as terminal:
            process = terminal.start(app.session.start, *words, "echo waiting; exec sleep 60")
            terminal.wait_for("waiting")
            terminal.type(key)
            assert process.wait(15) == code
    process = app.session.start(
        *words,
        "trap 'exit 9' TERM; echo waiting; while :; do sleep 0.1; done",
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    process.terminate()
    assert process.wait(15) == 9
    assert instance.poll() is None


def test_a_program_that_is_not_there(app: Commands) -> None:
    app.session.background(app.image, "sleep 60")
    for words in (["no-such-program"], ["/etc/release"], ["command", "-v", "sh"], [""]):
        done = app.session.run(app.image, "fim-instance", "exec", "0", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert texts(done.stderr) == ["Could not start PID, program not found?"]


ENTERING = """
import os, sys
from fimctl import enter

class Refusing:
    @staticmethod
    def find_spec(name, *_):
        os.write(2, f"{name} is imported\\n".encode())
        os._exit(99)

def refusing(change):
    def changed(*words):
        for name in LATE:
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, Refusing)
        return change(*words)
    return changed

LATE = ("warnings",)  # what other Pythons have not imported yet
enter._set_namespace, os.chroot = refusing(enter._set_namespace), refusing(os.chroot)
sys.exit(enter.enter(int(sys.argv[1]), sys.argv[2:]))
"""


@pytest.mark.parametrize("unshare", ["", "pid"])
def test_nothing_is_imported_from_the_instance_that_is_entered(app: Commands, unshare: str) -> None:
    if unshare:
        app.silent("fim-unshare", "add", unshare)
    instance = app.session.background(app.image, "sleep 60")

    def entered(*words: str) -> tuple[int, str, list[str]]:
        python = (app.session.account.python, "-P", "-c", ENTERING, str(instance.pid))
        done = app.session.run(*python, *words)
        return done.returncode, done.stdout, texts(done.stderr)

    assert entered("sh", "-c", "echo in; exit 3") == (3, "in\n", [])
    assert entered("/bin/echo", "in") == (0, "in\n", [])
    for missing in ("no-such-program", "/no/such/program", ""):
        assert entered(missing) == (1, "", ["Could not start PID, program not found?"])


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
