"""Who is in a sandbox is told nothing, and who has other mounts is not let write elsewhere."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.session import Session, wait_for

DENIED = "where fimd takes no orders from"
ROOT = "/org/flatimage/Fim1"
OWN_USERS = ("unshare", "-Um", "--map-current-user")


@pytest.mark.parametrize("wrap", [OWN_USERS, (*OWN_USERS, "-pf"), ("bwrap", "--unshare-user")])
def test_a_start_from_a_sandbox_is_refused_and_the_next_one_works(
    session: Session, image: Path, wrap: tuple[str, ...]
) -> None:
    words = (*wrap, *(("--dev-bind", "/", "/") if wrap[0] == "bwrap" else ()))
    for command in ((image, "fim-exec"), ("fimctl", "run", image)):
        done = session.run(*words, *command, "touch", "/made")
        assert done.returncode == 125
        assert DENIED in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert session.run(image, "fim-exec", "ls", "/made").returncode != 0


def test_a_program_inside_that_reaches_the_bus_is_told_nothing(
    session: Session, image: Path
) -> None:
    session.output(image, "fim-perms", "set", "dbus_user")
    for source in ("/usr", "/lib", "/lib64", "/etc"):
        session.output(image, "fim-bind", "add", "ro", source, source)
    manager = f"{ROOT} org.flatimage.Fim1.Manager"
    calls = {
        f"StartInstance 'aya{{sv}}' 1 47 0 {manager}": False,
        f"OpenImage 'aya{{sv}}' 1 47 0 {manager}": False,
        f"Prune 'a{{sv}}' 0 {manager}": False,
        f"Shutdown 'a{{sv}}' 0 {manager}": False,
        f"GetAll s org.flatimage.Fim1.Manager {ROOT} org.freedesktop.DBus.Properties": False,
        f"GetManagedObjects '' {ROOT} org.freedesktop.DBus.ObjectManager": False,
        f"Register 'aya{{sv}}' 1 47 0 {ROOT} org.flatimage.Fim1.Catalogue": False,
        f"Activate 'a{{sv}}' 0 {ROOT} org.freedesktop.Application": False,
        f"Match s app {ROOT}/Runner org.kde.krunner1": False,
        f"Ping '' {ROOT} org.freedesktop.DBus.Peer": True,
        f"Introspect '' {ROOT} org.freedesktop.DBus.Introspectable": True,
    }
    for call, allowed in calls.items():
        *member, path, interface = call.split(" ")
        script = f"busctl --user call org.flatimage.Fim1 {path} {interface} {' '.join(member)}"
        done = session.run(image, "fim-exec", "/usr/bin/env", "sh", "-c", script)
        assert (done.returncode == 0) == allowed, done
        assert (DENIED in done.stderr) != allowed, done
    wait_for(lambda: session.objects("ps") == [], what="the end of all instances")


@pytest.mark.parametrize("permissions", ["none", "home", "home,processes,dbus_user,network"])
def test_a_program_inside_does_not_find_the_own_socket(
    session: Session, image: Path, permissions: str
) -> None:
    if permissions != "none":
        session.output(image, "fim-perms", "set", permissions)
    session.output(image, "fim-bind", "add", "rw", str(session.directory), "/session")
    socket = session.tree / "bus"
    paths = [socket, Path("/session") / socket.relative_to(session.directory)]
    script = 'for path; do ls -d "$path"; ls "${path%/*}"; done 2>&1; find / -xdev -name bus'
    said = session.output(image, "fim-exec", "sh", "-c", script, "sh", *paths).splitlines()
    assert socket.is_socket()
    assert [line for line in said if str(socket) in line and "No such file" not in line] == []
    assert {line for line in said if "/" not in line} == {"bin", "sbin", "instance"}


@pytest.mark.parametrize("wrap", [OWN_USERS, (*OWN_USERS, "-pf")])
def test_who_is_in_a_sandbox_is_refused_by_the_own_socket(
    session: Session, wrap: tuple[str, ...]
) -> None:
    session.output("fimctl", "status")
    way = ("--address", f"unix:path={session.tree}/bus", "-d", "org.flatimage.Fim1", "-o", ROOT)
    for method in ("ObjectManager.GetManagedObjects", "Introspectable.Introspect"):
        done = session.run(*wrap, "gdbus", "call", *way, "-m", f"org.freedesktop.DBus.{method}")
        assert (done.returncode == 0) == method.endswith("Introspect"), done
        assert (DENIED in done.stderr) != method.endswith("Introspect"), done


def test_a_client_does_not_talk_to_who_listens_in_a_sandbox(session: Session, image: Path) -> None:
    session.output("fimctl", "shutdown")
    wait_for(lambda: not session.daemons(), what="the daemon's end")
    script = (
        "import socket, sys, time\n"
        "one = socket.socket(socket.AF_UNIX)\n"
        "one.bind(sys.argv[1])\n"
        "one.listen()\n"
        "print('up', flush=True)\n"
        "print(one.accept()[0].recv(100))\n"
    )
    words = ("unshare", "-Ur", session.account.python, "-c", script, session.tree / "bus")
    trap = session.start(*words, stdout=subprocess.PIPE)
    assert trap.stdout is not None
    assert trap.stdout.readline() == b"up\n"
    assert session.output(image, "fim-exec", "echo", "hello") == "hello\n"
    assert trap.stdout.readline() == b"b''\n"  # not even a word


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have mounts of its own alone")
@pytest.mark.parametrize("place", ["home", "work", "work/here"])
def test_a_process_with_other_files_is_told_so_before_anything_is_written(
    session: Session, image: Path, place: str
) -> None:
    here = session.directory / "work" / "here"
    here.mkdir()
    os.chown(here, session.account.uid, session.account.gid)
    session.output(image, "fim-perms", "set", "home")
    keeper = session.background(image, "sleep 60")
    uid, gid = session.account.uid, session.account.gid
    script = (
        'cp "$1" /dev/shm/app.$$ 2>/dev/null; image=$1; mount -t tmpfs -o mode=777 none "$2"; '
        '[ -e "$1" ] || { cp /dev/shm/app.$$ "$1"; chmod 755 "$1"; }; rm -f /dev/shm/app.$$; '
        f'mkdir -p "$3"; cd "$3"; exec setpriv --reuid={uid} --regid={gid} --clear-groups '
        '"$1" fim-exec touch written'
    )
    given = map(str, (image, session.directory / place, here))
    words = ["unshare", "-m", "sh", "-c", script, "sh", *given]
    done = subprocess.run(
        words, env=session.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 125, done
    assert "is not the same here as for fimd" in done.stderr
    assert "start the image outside of them" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(session.directory.rglob("written"))
    keeper.kill()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have mounts of its own alone")
def test_mounts_of_its_own_that_are_the_same_are_no_obstacle(session: Session, image: Path) -> None:
    uid, gid = session.account.uid, session.account.gid
    switch = f'exec setpriv --reuid={uid} --regid={gid} --clear-groups "$@"'
    words = ["unshare", "-m", "sh", "-c", switch, "sh", str(image), "fim-exec", "touch", "/saved"]
    done = subprocess.run(
        words, env=session.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert session.output(image, "fim-exec", "ls", "/saved") == "/saved\n"
