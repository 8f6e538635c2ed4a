"""Two users of one machine share /tmp/fim, and neither gets in the other's way."""

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.account import Account, own
from tests.support.session import Session, byte_by_byte

OTHER = "news"  # as PLAIN_ACCOUNT: on every Debian, owns nothing, nobody logs in as it


@pytest.fixture
def neighbours(open_directory: Path, plain_account: Account) -> Iterator[tuple[Session, Session]]:
    """Sessions of two plain users with one FIM_DIR_GLOBAL, which root has made."""
    if os.getuid() != 0:
        pytest.skip("only root can be two users")
    try:
        entry = pwd.getpwnam(OTHER)
    except KeyError:
        pytest.skip(f"there is no user {OTHER}")
    second = Account(
        entry.pw_uid, entry.pw_gid, OTHER, plain_account.python, plain_account.environment
    )
    shared = Path(tempfile.mkdtemp(dir=open_directory))
    shared.chmod(0o1777)
    settings = {"FIM_DIR_GLOBAL": str(shared)}
    with ExitStack() as stack:
        sessions = []
        for account in (plain_account, second):
            directory = Path(tempfile.mkdtemp(dir=open_directory))
            directory.chmod(0o755)
            os.chown(directory, account.uid, account.gid)
            sessions.append(stack.enter_context(Session(directory, account, settings)))
        yield sessions[0], sessions[1]


def tree(session: Session) -> Path:
    return Path(session.settings["FIM_DIR_GLOBAL"]) / "app" / f"u{session.account.uid}"


def make_app(session: Session, mode: int = 0o1777) -> Path:
    """Make app/, which whoever comes first makes, and only root so that others trust it."""
    app = tree(session).parent
    app.mkdir()
    app.chmod(mode)
    return app


def test_both_run_the_same_image_and_neither_sees_into_the_others_tree(
    neighbours: tuple[Session, Session], busybox_image: Path
) -> None:
    first, second = neighbours
    images = [session.adopt(busybox_image, "app.flatimage") for session in neighbours]
    make_app(first)
    programs = [
        session.background(image, "sleep 60")
        for session, image in zip(neighbours, images, strict=True)
    ]
    assert len(first.objects("ps")) == 1
    assert len(second.objects("ps")) == 1
    assert stat.S_IMODE(tree(first).stat().st_mode) == 0o700
    spied = second.run("ls", str(tree(first)))
    assert spied.returncode != 0
    assert "Permission denied" in spied.stderr
    for program in programs:
        program.kill()
        program.wait()


def test_another_user_may_not_call_the_daemon(
    neighbours: tuple[Session, Session], busybox_image: Path
) -> None:
    first, second = neighbours
    address = f"unix:path={first.directory}/run/bus"
    make_app(first)
    first.output("fimctl", "status")
    for place in (address, f"unix:path={tree(first)}/bus"):
        ping = ["--dest", "org.flatimage.Fim1", "--object-path", "/", "--method"]
        asked = ["gdbus", "call", "--address", place, *ping, "org.freedesktop.DBus.Peer.Ping"]
        assert second.run(*asked).returncode != 0
    # fimctl takes it for a bus that has ended
    done = second.output("fimctl", "status", variables={"DBUS_SESSION_BUS_ADDRESS": address})
    assert str(first.directory) not in done


TRICKS = ("directory", "link", "dangling link", "file", "hard link", "fifo", "socket", "app")


@pytest.mark.parametrize("trick", TRICKS)
def test_a_tree_that_the_neighbour_made_first_is_refused_with_the_way_out(
    neighbours: tuple[Session, Session], busybox_image: Path, trick: str
) -> None:
    victim, squatter = neighbours
    target = tree(victim)
    if trick != "app":
        make_app(victim)
    listen = f"import socket; socket.socket(socket.AF_UNIX).bind({str(target)!r})"
    squatter.output("touch", "mine")
    tricks: dict[str, Callable[[], str]] = {
        "directory": lambda: squatter.output("mkdir", "-m", "777", target),
        "dangling link": lambda: squatter.output("ln", "-s", "work/nowhere", target),
        "hard link": lambda: squatter.output("ln", "mine", target),
        "fifo": lambda: squatter.output("mkfifo", "-m", "777", target),
        "socket": lambda: squatter.output("python3", "-c", listen),
        "link": lambda: squatter.output("ln", "-s", squatter.directory / "work", target),
        "file": lambda: squatter.output("touch", target),
        "app": lambda: squatter.output("mkdir", "-m", "777", target.parent),
    }
    tricks[trick]()
    image = victim.adopt(busybox_image, "app.flatimage")
    done = victim.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert "FIM_DIR_GLOBAL" in done.stderr
    assert [path.name for path in (squatter.directory / "work").iterdir()] == ["mine"]


def test_a_directory_that_anyone_may_change_is_refused(
    neighbours: tuple[Session, Session], busybox_image: Path
) -> None:
    victim, _squatter = neighbours
    app = make_app(victim, 0o777)  # root's, and not sticky: what lies in it could be replaced
    image = victim.adopt(busybox_image, "app.flatimage")
    done = victim.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert f"{app} can be changed by anyone (mode 777)" in done.stderr


def test_a_tree_of_ones_own_that_was_left_open_is_closed(
    neighbours: tuple[Session, Session], busybox_image: Path
) -> None:
    victim, neighbour = neighbours
    make_app(victim)
    victim.output("mkdir", "-p", tree(victim) / "layers")
    victim.output("chmod", "777", tree(victim), tree(victim) / "layers")
    image = victim.adopt(busybox_image, "app.flatimage")
    assert victim.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    assert stat.S_IMODE(tree(victim).stat().st_mode) == 0o700
    assert stat.S_IMODE((tree(victim) / "layers").stat().st_mode) == 0o700
    assert neighbour.run("ls", tree(victim)).returncode != 0


SWAP = """
import os, sys, time
target, own = sys.argv[1:]
end = time.monotonic() + 4
print("up", flush=True)
while time.monotonic() < end:
    for make in (lambda: os.mkdir(target, 0o777), lambda: os.symlink(own, target)):
        try:
            make()
        except FileExistsError:
            continue
        for _ in range(50):
            pass
        try:
            os.rmdir(target) if not os.path.islink(target) else os.unlink(target)
        except OSError:
            pass
"""
OPEN = """
import os, sys
from fimd.base.errors import AccessDeniedError
from fimd.base.paths import RuntimeTree
opened = refused = 0
for _ in range(3000):
    try:
        root = RuntimeTree.open().root
    except AccessDeniedError:
        refused += 1
        continue
    opened += 1
    assert os.lstat(root).st_uid == os.getuid()
    break
print(opened, refused)
"""


def test_a_directory_that_is_swapped_for_a_link_between_two_looks_is_never_followed(
    neighbours: tuple[Session, Session],
) -> None:
    victim, squatter = neighbours
    make_app(victim)
    squatter.output("mkdir", "-m", "777", "trap")
    trap = squatter.directory / "work" / "trap"
    python = victim.account.python
    swapper = squatter.start(
        *(squatter.account.python, "-c", SWAP, tree(victim), trap), stdout=subprocess.PIPE
    )
    assert swapper.stdout is not None
    assert swapper.stdout.readline() == b"up\n"
    opened, refused = map(int, victim.output(python, "-P", "-c", OPEN).split())
    swapper.kill()
    swapper.wait()
    assert opened + refused > 0
    assert list(trap.iterdir()) == []


def start_instance(
    session: Session, busybox_image: Path, pid: int
) -> "subprocess.CompletedProcess[str]":
    """Ask for an instance that a process is to be."""
    make_app(session)
    image = session.adopt(busybox_image, "app.flatimage")
    return session.run(
        *("gdbus", "call", "--session", "--dest", "org.flatimage.Fim1"),
        *("--object-path", "/org/flatimage/Fim1"),
        *("--method", "org.flatimage.Fim1.Manager.StartInstance"),
        *(byte_by_byte(image), f"{{'pid': <uint32 {pid}>}}"),
    )


@pytest.mark.parametrize("pid", [1, 0, 2**32 - 1])
def test_a_process_that_is_not_the_callers_cannot_be_made_an_instance(
    neighbours: tuple[Session, Session], busybox_image: Path, pid: int
) -> None:
    first, _second = neighbours
    done = start_instance(first, busybox_image, pid)
    assert done.returncode != 0
    assert "org.flatimage.Fim1.Error." in done.stderr
    assert "fault of its own" not in done.stderr
    assert first.objects("ps") == []


def test_a_process_of_another_user_cannot_be_made_an_instance(
    neighbours: tuple[Session, Session], busybox_image: Path
) -> None:
    first, _second = neighbours
    done = start_instance(first, busybox_image, os.getpid())
    assert done.returncode != 0
    assert "org.flatimage.Fim1.Error.AccessDenied" in done.stderr
    assert f"process {os.getpid()} belongs to user {own().uid}" in done.stderr
