"""An image starts wherever a shell does: there need be no session bus, nor anything set up."""

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.account import is_root_of_others
from tests.support.session import Session, wait_for

_NEEDED = ("FIM_DIR_GLOBAL", "FIMD_IDLE", "FIMD_LINGER", "HOME")
NAME, ROOT = "org.flatimage.Fim1", "/org/flatimage/Fim1"


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    """A session without a bus."""
    return new_session(has_bus=False)


def reached(session: Session, **options: object) -> str:
    return str(json.loads(session.output("fimctl", "status", "--json", **options))["reached"])


def test_an_image_starts_without_any_bus_and_the_daemon_leaves_when_it_has_nothing_to_do(
    session: Session, image: Path
) -> None:
    assert session.output(image, "fim-exec", "echo", "hello") == "hello\n"
    assert reached(session) == "fimd's own socket"
    running = session.background(image, "sleep 60")
    daemon = session.daemon()
    time.sleep(1)  # more than it stays without instances
    assert session.daemon() == daemon
    assert session.output(image, "fim-exec", "echo", "again") == "again\n"
    running.kill()
    wait_for(lambda: not session.processes(), 15, "the daemon's end")
    assert not (session.tree / "bus").exists()
    session.wait_until_clean()
    assert session.output(image, "fim-exec", "echo", "anew") == "anew\n"


def test_what_a_client_has_of_its_own_is_not_the_daemons(session: Session, image: Path) -> None:
    script = (
        "trap '' HUP TERM; umask 077; ulimit -f 1 -n 64; mkdir gone; cd gone; rmdir ../gone; "
        "export LD_LIBRARY_PATH=/gone PYTHONHOME=/gone; "
        'exec setsid "$1" fim-exec sh -c "sleep 9"'
    )
    running = session.start("sh", "-c", script, "sh", image)
    wait_for(session.daemons, 20, "a daemon")
    wait_for(lambda: session.objects("ps"), 20, "the instance")
    daemon = Path("/proc", str(session.daemon()))
    environment = (daemon / "environ").read_bytes().split(b"\0")
    assert not [word for word in environment if word.startswith((b"LD_", b"PYTHONHOME"))]
    assert os.readlink(daemon / "cwd") == "/"
    assert {os.readlink(daemon / "fd" / str(number)) for number in range(3)} == {"/dev/null"}
    status = dict(
        line.split(":\t") for line in (daemon / "status").read_text().splitlines() if ":\t" in line
    )
    assert status["Umask"] == "0022"
    assert int(status["SigIgn"], 16) & (1 << (signal.SIGHUP - 1)) == 0
    limits = (daemon / "limits").read_text().splitlines()
    [files] = (line.split() for line in limits if line.startswith("Max file size"))
    assert files[3] == files[4]
    stat = (daemon / "stat").read_text().rpartition(")")[2].split()
    assert stat[3] != str(os.getsid(running.pid))  # a session of its own
    running.kill()


def test_however_many_clients_come_at_once_one_daemon_is_started(
    new_session: Callable[..., Session], busybox_image: Path
) -> None:
    session = new_session(has_bus=False, FIMD_IDLE="5")  # some come late on a busy machine
    image = session.adopt(busybox_image, "app.flatimage")
    starts = [
        session.start(image, "fim-exec", "sh", "-c", "echo started", stdout=subprocess.PIPE)
        for _ in range(200)
    ]
    said = [start.communicate(timeout=100)[0] for start in starts]
    assert said == [b"started\n"] * 200
    assert [start.returncode for start in starts] == [0] * 200
    log = (session.tree / "state" / "fimd.log").read_text()
    assert log.count('"event": "serving"') == 1, log


def test_why_the_daemon_refuses_is_told_to_each_client_that_waits(
    session: Session, image: Path
) -> None:
    clients = [
        session.start(image, "fim-exec", "true", variables={"FIMD_CACHE": "lots"}, stderr=-1)
        for _ in range(5)
    ]
    for client in clients:
        _, said = client.communicate(timeout=60)
        assert b"fimd can't start: FIMD_CACHE: setting cache can't be 'lots'" in said, said
        assert client.returncode == 125


def test_a_daemon_that_is_killed_while_clients_come_is_replaced(
    session: Session, image: Path
) -> None:
    session.output(image, "fim-exec", "true")
    for _ in range(3):
        starts = [session.start(image, "fim-exec", "true") for _ in range(4)]
        for pid in session.daemons():
            os.kill(pid, signal.SIGKILL)
        assert [start.wait(60) for start in starts] == [0] * 4


def test_a_stale_address_is_no_obstacle(session: Session, image: Path) -> None:
    for address in (
        f"unix:path={session.directory}/run/none",
        "unix:abstract=none",
        "tcp:host=localhost,port=1",
        "nonsense",
    ):
        variables = {"DBUS_SESSION_BUS_ADDRESS": address}
        done = session.run(image, "fim-exec", "echo", "hello", variables=variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", ""), done
    assert reached(session, variables=variables) == "fimd's own socket"
    wait_for(lambda: not session.processes(), 15, "the daemon's end")
    assert reached(session, variables=variables) == "fimd's own socket"


def has_name(session: Session, address: str) -> bool:
    done = session.run(
        *("busctl", f"--address={address}", "call", "org.freedesktop.DBus"),
        *("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s", NAME),
    )
    return done.stdout == "b true\n"


def test_a_bus_that_comes_is_served_its_end_survived_and_the_next_one_served(
    session: Session, image: Path
) -> None:
    running = session.background(image, "read -r _", stdin=subprocess.PIPE)
    daemon = session.daemon()
    address = f"unix:path={session.directory}/run/bus"
    for _ in range(2):
        session.start_bus()
        wait_for(lambda: has_name(session, address), 10, "the name on the bus")
        by_bus = session.output(
            *("busctl", f"--address={address}", "get-property", NAME),
            *(f"{ROOT}/instance/{running.pid:010d}", f"{NAME}.Instance", "State"),
        )
        assert by_bus == 's "running"\n'
        session.end_bus()
        assert session.output(image, "fim-exec", "echo", "on") == "on\n"
        assert session.daemon() == daemon
    assert running.stdin is not None
    running.stdin.write(b"\n")
    running.stdin.close()
    assert running.wait(10) == 0


@contextmanager
def second_bus(session: Session) -> Iterator[str]:
    """Another bus of the same user, which starts the daemon as the first does."""
    place = session.directory / "run" / "second"
    config = (session.directory / "bus.conf").read_text()
    path = session.directory / "second.conf"
    path.write_text(config.replace("/run/bus", "/run/second"))
    bus = session.start("dbus-daemon", f"--config-file={path}", "--nofork")
    wait_for(place.exists, 10, "the second bus")
    yield f"unix:path={place}"
    bus.terminate()
    bus.wait(10)


def test_two_session_buses_lead_to_one_daemon(
    new_session: Callable[..., Session], busybox_image: Path
) -> None:
    session = new_session()
    image = session.adopt(busybox_image, "app.flatimage")
    running = session.background(image, "sleep 60")
    with second_bus(session) as address:
        there = {"DBUS_SESSION_BUS_ADDRESS": address}
        seen = session.output(
            *("busctl", "--user", "get-property", NAME),
            *(f"{ROOT}/instance/{running.pid:010d}", f"{NAME}.Instance", "Pid"),
            variables=there,
        )
        assert seen == f"u {running.pid}\n"
        assert session.output(image, "fim-exec", "echo", "hello", variables=there) == "hello\n"
        wait_for(lambda: len(session.daemons()) == 1, 10, "the end of the second")
    assert session.output(image, "fim-exec", "echo", "on") == "on\n"
    running.kill()


def test_systemds_socket_takes_the_place_of_a_clients_daemon(session: Session, image: Path) -> None:
    running = session.background(image, "sleep 60")
    first = session.daemon()
    socket = session.tree / "bus"
    socket.unlink()
    passed = [f"-E{name}={value}" for name, value in session.environment.items()]
    activate = ("systemd-socket-activate", "-l", str(socket), *passed)
    daemon = session.directory / "bin" / "fimd"
    systemd = session.start(*activate, daemon, stderr=subprocess.DEVNULL)
    wait_for(socket.exists, 10, "the socket")
    assert session.output(image, "fim-exec", "echo", "hello") == "hello\n"
    assert session.daemon() == systemd.pid != first
    [instance] = session.instances_of(running)
    assert instance["State"] == "running"
    assert socket.is_socket()
    session.output("fimctl", "shutdown")
    assert systemd.wait(20) == 0
    assert socket.is_socket()  # it is systemd's to remove
    running.kill()
    assert session.output(image, "fim-exec", "echo", "anew") == "anew\n"


# wherever there is a shell


def says_hello(*command: str) -> None:
    """Run a command that is to start the image, from a directory that is nobody's."""
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done


def words(session: Session, image: Path, *names: str) -> str:
    """A shell's command that starts the image with what alone it needs to find its session."""
    kept = {name: session.environment[name] for name in (*_NEEDED, *names)}
    given = {**kept, **session.account.environment, "FIMCTL": f"{session.directory}/bin/fimctl"}
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
    return f"env {variables} {shlex.quote(str(image))} fim-exec echo hello"


@pytest.mark.parametrize(
    "way",
    [
        'exec env -i PATH=/usr/bin:/bin sh -c "$1"',
        'exec env -i /bin/sh -c "$1"',
        'exec setsid -w sh -c "$1"',
        'exec script -qec "$1" /dev/null',
        'nohup sh -c "$1" </dev/null 2>/dev/null',
        '(sh -c "$1" & wait)',
        'exec nice -n 5 sh -c "$1"',
        'cd / && umask 000 && exec sh -c "$1"',
    ],
)
def test_it_starts_in_any_shell(session: Session, image: Path, way: str) -> None:
    done = session.run("sh", "-c", way, "sh", words(session, image))
    assert (done.returncode, done.stdout.strip()) == (0, "hello"), done


@pytest.mark.skipif(not is_root_of_others(), reason="only root becomes another user")
@pytest.mark.parametrize(
    "command",
    [
        ("su", "-s", "/bin/sh", "-", "{user}", "-c"),
        ("su", "-s", "/bin/sh", "{user}", "-c"),
        ("sudo", "-n", "-u", "{user}", "sh", "-c"),
        ("runuser", "-u", "{user}", "--", "sh", "-c"),
        ("setpriv", "--reuid={user}", "--clear-groups", "sh", "-c"),
    ],
    ids=lambda command: command[0],
)
def test_it_starts_for_who_has_become_its_user(
    session: Session, image: Path, command: tuple[str, ...]
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    filled = [word.format(user=session.account.name) for word in command]
    says_hello(*filled, words(session, image))


@pytest.mark.skipif(not is_root_of_others(), reason="only root has mounts of its own alone")
def test_it_starts_from_a_mount_namespace(session: Session, image: Path) -> None:
    uid, gid = session.account.uid, session.account.gid
    identity = f"setpriv --reuid={uid} --regid={gid} --clear-groups"
    script = f"{identity} sh -c {shlex.quote(words(session, image))}"
    says_hello("unshare", "-m", "sh", "-c", script)


@pytest.mark.skipif(not is_root_of_others(), reason="only root serves logins")
def test_it_starts_by_ssh(session: Session, image: Path) -> None:
    sshd, client = "/usr/sbin/sshd", shutil.which("ssh")
    if not Path(sshd).exists() or client is None:
        pytest.skip("there is no sshd")
    user = session.account.name
    if pwd.getpwnam(user).pw_shell.endswith(("nologin", "false")):
        pytest.skip(f"{user} can't log in")
    ssh = session.directory / "ssh"
    ssh.mkdir(mode=0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    for key in ("host", "own"):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", ssh / key], check=True)
    shutil.copy(ssh / "own.pub", ssh / "authorized")
    config = {
        "HostKey": ssh / "host",
        "AuthorizedKeysFile": ssh / "authorized",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PidFile": "none",
    }
    options = [f"-o{name}={value}" for name, value in config.items()]
    proxy = shlex.join([sshd, "-i", "-f", "/dev/null", *options])
    asked = ["-i", str(ssh / "own"), "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
    login = [client, "-F", "/dev/null", "-q", *asked, f"-oProxyCommand={proxy}"]
    done = subprocess.run(
        [*login, f"{user}@localhost", words(session, image)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done


@pytest.mark.slow
@pytest.mark.skipif(not is_root_of_others(), reason="only root serves cron jobs")
@pytest.mark.timeout(150)
def test_it_starts_by_cron(session: Session, image: Path) -> None:
    cron, table = shutil.which("cron", path="/usr/sbin:/sbin"), Path("/etc/cron.d/fimd-test")
    if cron is None or not table.parent.is_dir() or session.account.uid == 0:
        pytest.skip("there is no cron, or it runs for the plain user's test already")
    output = session.directory / "work" / "output"
    line = f"* * * * * {session.account.name} {words(session, image)} >{output} 2>&1\n"
    table.write_text(f"SHELL=/bin/sh\n{line}")
    table.chmod(0o644)
    daemon = subprocess.Popen([cron, "-f"])
    try:
        wait_for(lambda: output.exists() and output.read_text(), 90, "what the job says")
    finally:
        daemon.terminate()
        daemon.wait(10)
        table.unlink()
    assert output.read_text() == "hello\n"
