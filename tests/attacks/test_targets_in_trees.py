"""An image has what it likes in place of what is bound: it starts, and the host is as before."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED
from tests.support.session import Session, wait_for

DIRECTORY, FILE = "a directory", "a file"
OBSTACLES = [
    # what is in the image, what it is or where it leads, the permission, what is bound after all
    ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf", "network", "/etc/passwd"),
    ("etc/hosts", "/usr/etc/hosts", "network", "/usr/etc/hosts"),
    ("etc/nsswitch.conf", "nsswitch.conf", "network", "/etc/passwd"),
    ("etc/resolv.conf", DIRECTORY, "network", "/etc/passwd"),
    ("etc/group", "/usr/etc/group", "udev", "/usr/etc/group"),
    ("etc/passwd", "passwd2", "udev", "/etc/passwd2"),
    ("etc/passwd", DIRECTORY, "udev", "/etc/group"),
    ("etc", "/usr/etc", "udev", "/usr/etc/passwd"),
    ("home", "/var/home", "home", "/etc/passwd"),
    ("mnt", "var/mnt", "media", "/etc/passwd"),
    ("mnt", FILE, "media", "/etc/passwd"),
    ("run", "/proc/self/root/run", "udev", "/etc/passwd"),
    ("run", "run", "udev", "/etc/passwd"),
]


@pytest.fixture(params=INSTALLED)
def overlay(request: pytest.FixtureRequest) -> str:
    """An overlay."""
    name: str = request.param
    return name


def put(session: Session, image: Path, path: str, what: str) -> None:
    """Put something into an image's tree, where there is nothing else that was changed."""
    root = image.parent / f".{image.name}.data" / "root"
    shutil.rmtree(root, ignore_errors=True)
    target = root / path
    target.parent.mkdir(parents=True)
    if what == DIRECTORY:
        target.mkdir()
    elif what == FILE:
        target.touch()
    else:
        target.symlink_to(what)
    for made in (root, *root.rglob("*")):
        os.chown(made, session.account.uid, session.account.gid, follow_symlinks=False)


def test_a_link_or_another_kind_of_file_is_no_obstacle(
    session: Session, image: Path, overlay: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    for path, what, permission, bound in OBSTACLES:
        if permission == "network" and not Path("/", path).exists():
            continue  # a small machine has no /etc/hosts to show
        put(session, image, path, what)
        session.output(image, "fim-perms", "set", permission)
        done = session.run(image, "fim-exec", "cat", bound)
        assert done.returncode == 0, (path, what, done)
        assert done.stdout, (path, what)
        assert all(" is not shown at " in line for line in done.stderr.splitlines()), done
        wait_for(lambda: session.objects("ps") == [], what="the end of all instances")


@pytest.mark.parametrize(
    ("overlay", "link"),
    [
        ("bwrap", "/oldroot{}"),
        ("bwrap", "../../oldroot{}"),
        ("unionfs", "/oldroot{}"),
        ("overlayfs", "/proc/self/root/oldroot{}"),
    ],
)
def test_no_link_makes_a_file_on_the_host(
    session: Session, image: Path, overlay: str, link: str
) -> None:
    work = session.directory / "work"
    session.output(image, "fim-overlay", "set", overlay)
    session.output(image, "fim-perms", "set", "network,media,udev")
    session.output(image, "fim-bind", "add", "ro", "/etc/hostname", "/mnt/made-file")
    session.output(image, "fim-bind", "add", "ro", "/usr", "/mnt/made/directory")
    to = link.format(work)
    for path in ("etc/hosts", "etc/passwd", "mnt", "run", "dev", "tmp"):
        put(session, image, path, to if "/" not in path else f"{to}/made")
        before = {entry.name for entry in work.iterdir()}
        done = session.run(image, "fim-exec", "true")
        if path == "tmp" and link.startswith("/proc"):
            assert done.returncode == 125
            assert "can't be shown at /tmp (/proc/self is a link of the kernel's)" in done.stderr
        else:
            assert done.returncode == 0, (path, done)
        wait_for(lambda: session.objects("ps") == [], what="the end of all instances")
        assert {entry.name for entry in work.iterdir()} == before


def test_no_file_is_made_in_what_the_host_shares(session: Session, image: Path) -> None:
    trap = session.directory / "work" / "trap"
    trap.mkdir()
    os.chown(trap, session.account.uid, session.account.gid)
    (trap / "out").symlink_to(f"/oldroot{session.directory}/work")
    session.output(image, "fim-bind", "add", "rw", str(trap), "/shown")
    for target in ("/shown/new", f"{trap}/new", "/shown/out/new", "/sys/new", "/proc/new", "/"):
        session.output(image, "fim-bind", "add", "ro", "/usr", target)
    done = session.run(image, "fim-exec", "ls", "/shown")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert len(done.stderr.splitlines()) == 5  # /shown/out/new is in the image
    assert all("/usr is not shown at" in line for line in done.stderr.splitlines())
    assert [path.name for path in trap.iterdir()] == ["out"]


def test_a_home_behind_a_link_has_the_working_directory(session: Session, image: Path) -> None:
    if session.account.uid == 0:
        pytest.skip("root is shown no home")
    real = session.directory / "home" / "real" / "work"
    real.mkdir(parents=True)
    (real / "file").write_text("hello\n")
    (session.directory / "home" / "link").symlink_to("real")
    session.output(image, "fim-perms", "set", "home")
    home = session.directory / "home" / "link"
    shown = session.output(
        *(image, "fim-exec", "sh", "-c", "cat file; cat $HOME/work/file"),
        variables={"HOME": str(home)},
        directory=home / "work",
    )
    assert shown == "hello\nhello\n"
