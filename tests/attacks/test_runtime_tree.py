"""The runtime tree is out of a program's reach, wherever a part of the host shows it."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.image_commands import Commands
from tests.support.overlays import INSTALLED
from tests.support.session import Session

OWN = {"bin", "instance", "sbin"}
"""What an instance sees of the runtime tree."""


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


def listed(app: Commands, place: str | Path, command: str = "fim-exec") -> list[str]:
    """What a program sees in a place, and everything that it could write to there."""
    done = app.session.run(app.image, command, "find", str(place), "-maxdepth", "2")
    below = done.stdout.replace(str(place), "").split()
    script = 'find "$0" ! -type l -exec touch -c {} \\; -print'
    writable = app.session.run(app.image, command, "sh", "-c", script, str(place))
    assert (writable.stdout, "nrecognized" in writable.stderr) == ("", False)
    return below


@pytest.mark.parametrize("overlay", INSTALLED)
@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_in_tmp_it_shows_what_is_the_instances_own_and_nothing_can_be_written(
    app: Commands, overlay: str, command: str
) -> None:
    app.silent("fim-overlay", "set", overlay)
    app.session.background(app.image, "sleep 60")  # another one's directory, and a stack
    tree = app.session.tree
    script = (
        f"cd {tree}; ls; ls instance; ls instance/$FIM_PID/passwd; "
        f"for place in . bin sbin instance instance/$FIM_PID state stacks layers; do "
        f"  touch $place/new 2>/dev/null && echo written: $place; "
        f"  rm -rf $place/* 2>/dev/null; done; "
        "for file in bin/* instance/*/*; do "
        "  echo x 2>/dev/null > $file && echo written: $file; done; "
        "echo $FIM_PID"
    )
    said = app.output(command, "sh", "-c", script).split()
    pid = said[-1]
    assert said == [*sorted(OWN), pid, f"instance/{pid}/passwd", pid]
    assert (tree / "state" / "lock").exists()
    assert (tree / "bin" / "entry").exists()


@pytest.mark.parametrize("type_", ["ro", "rw", "dev"])
def test_a_binding_of_all_of_the_host_hides_it(app: Commands, type_: str) -> None:
    app.said("fim-bind", "add", type_, "/", "/host")
    assert listed(app, f"/host{app.session.tree}") == []
    assert app.output("fim-exec", "ls", "/host/usr") != ""


def test_a_binding_through_a_link_hides_it_too(app: Commands) -> None:
    link = app.session.directory / "work" / "link"
    link.symlink_to(app.session.directory)
    app.said("fim-bind", "add", "rw", str(link), "/shown")
    assert listed(app, "/shown/fim/app/" + app.session.tree.name) == []


@pytest.mark.parametrize("what", ["", "state", "bin"])
def test_what_leads_into_it_is_not_bound_and_told(app: Commands, what: str) -> None:
    app.output("fim-exec", "true")
    link = app.session.directory / "work" / "link"
    link.symlink_to(app.session.tree / what)
    for source in (link, app.session.tree / what):
        app.said("fim-bind", "add", "rw", str(source), "/shown")
        done = app.session.run(app.image, "fim-exec", "ls", "/shown")
        assert "it leads into fimd's own files" in done.stderr
        assert done.stdout == ""
        app.said("fim-bind", "del", "0")


@pytest.mark.parametrize("target", ["", "/state", "/bin", "/instance"])
def test_nothing_is_written_to_it_by_what_is_bound_over_it(app: Commands, target: str) -> None:
    app.output("fim-exec", "true")
    app.said("fim-bind", "add", "rw", "/usr", f"{app.session.tree}{target}/planted")
    app.session.run(app.image, "fim-exec", "true")
    assert list(app.session.tree.rglob("planted*")) == []


def test_a_permission_that_shows_the_place_of_it_hides_it(app: Commands) -> None:
    app.silent("fim-perms", "set", "home")
    home = {"HOME": str(app.session.directory)}
    tree = app.session.tree
    script = f"ls {tree}; touch {tree}/new {tree}/state/new"
    done = app.session.run(app.image, "fim-exec", "sh", "-c", script, variables=home)
    assert set(done.stdout.split()) == OWN
    assert done.returncode != 0
    assert not (tree / "new").exists()


@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_that_of_another_daemon_of_this_user_is_hidden_too(
    new_session: Callable[..., Session], busybox_image: Path, command: str
) -> None:
    session = new_session(has_bus=False)
    app = Commands(session, session.adopt(busybox_image, "app.flatimage"))
    other = session.directory / "work" / "other"
    session.output("mkdir", other)
    place = {"FIM_DIR_GLOBAL": str(other)}
    second = session.adopt(busybox_image, "second.flatimage")
    running = session.background(second, "sleep 60", variables=place)
    tree = other / "app" / session.tree.name
    assert (tree / "bin" / "entry").exists()
    assert listed(app, tree, command) == []
    running.kill()
    running.wait()
    session.output("fimctl", "shutdown", variables=place)


@pytest.fixture
def elsewhere(session: Session) -> Iterator[Path]:
    """Another mount of the file system that the runtime tree lies on."""
    if os.getuid() != 0:
        pytest.skip("only root may mount it")
    place = Path(tempfile.mkdtemp(prefix="fimd-alias-"))
    place.chmod(0o755)
    subprocess.run(["mount", "--bind", session.directory, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def test_another_mount_of_its_file_system_hides_it(app: Commands, elsewhere: Path) -> None:
    assert listed(app, elsewhere / "fim" / "app" / app.session.tree.name) == []


@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_what_hides_it_stays(app: Commands, command: str) -> None:
    tree = app.session.tree
    for how in ("", "unshare -Urm "):
        script = f"{how}busybox umount {tree}; {how}busybox umount -l {tree}; ls {tree}"
        done = app.session.run(app.image, command, "sh", "-c", script)
        assert set(done.stdout.split()) == OWN, done


@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_no_program_mounts_anything(app: Commands, command: str) -> None:
    done = app.session.run(app.image, command, "mount", "-t", "tmpfs", "x", "/tmp")
    assert done.returncode != 0
    sets = app.output(command, "grep", "^Cap", "/proc/self/status").split()[1::2]
    for number in (19, 21):  # CAP_SYS_PTRACE, CAP_SYS_ADMIN
        assert not any(int(value, 16) >> number & 1 for value in sets)
