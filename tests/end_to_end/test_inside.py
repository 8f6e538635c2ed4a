"""What a program finds in an image's tree and around it, and what of that is no change of it."""

import os
import signal
from pathlib import Path
from subprocess import DEVNULL

import pytest

from fimd.launch.entry import PROGRAM
from tests.support.image_commands import Commands
from tests.support.overlays import INSTALLED
from tests.support.session import Session, wait_for

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:\n"
SUPPORT = Path(__file__).parent.parent / "support"
GROUP = "root:x:0:\nweb:x:33:\n"


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


def put(app: Commands, **texts: str) -> Path:
    """Give the image files in /etc; return its upper."""
    root = app.data / "root"
    (root / "etc").mkdir(parents=True)
    for name, text in texts.items():
        (root / "etc" / name).write_text(text)
    for made in (app.data, root, *root.rglob("*")):
        os.chown(made, app.session.account.uid, app.session.account.gid)
    return root


def shell(app: Commands, script: str, command: str = "fim-root") -> str:
    return app.output(command, "sh", "-c", script)


@pytest.mark.parametrize("overlay", INSTALLED)
def test_root_adds_to_the_images_own_users_and_groups(app: Commands, overlay: str) -> None:
    put(app, passwd=PASSWD, group=GROUP)
    app.silent("fim-overlay", "set", overlay)
    add = "cp {0} {0}+ && echo {1} >>{0}+ && mv {0}+ {0}"
    shell(app, add.format("/etc/passwd", "new:x:250:250::/:/bin/sh"))
    shell(app, add.format("/etc/group", "new:x:250:"))
    app.output("fim-layer", "commit", "layer")
    assert shell(app, "cat /etc/passwd") == PASSWD + "new:x:250:250::/:/bin/sh\n"
    assert shell(app, "cat /etc/group") == GROUP + "new:x:250:\n"
    assert shell(app, "whoami; id -u new") == "root\n250\n"


def test_others_know_the_images_users_too_and_nothing_is_written(app: Commands) -> None:
    root = put(app, passwd=PASSWD, group=GROUP)
    assert shell(app, "id -u web; id -g web", "fim-exec") == "33\n33\n"
    account = app.session.account
    assert shell(app, "id -u; whoami", "fim-exec") == f"{account.uid}\n{account.name}\n"
    assert (root / "etc" / "passwd").read_text() == PASSWD
    assert (root / "etc" / "group").read_text() == GROUP


def test_an_image_without_root_gets_one_that_is_no_part_of_it(app: Commands) -> None:
    root = put(app, passwd="web:x:33:33::/var/www:\n")
    known = shell(app, "whoami; cat /etc/passwd").splitlines()
    assert (known[0], known[1][:11], known[2]) == ("root", "root:x:0:0:", "web:x:33:33::/var/www:")
    assert (root / "etc" / "passwd").read_text() == "web:x:33:33::/var/www:\n"
    refused = app.session.run(app.image, "fim-root", "sh", "-c", "echo x >>/etc/group")
    assert "Read-only file system" in refused.stderr


@pytest.mark.parametrize("overlay", INSTALLED)
def test_what_is_made_to_bind_over_is_no_change(app: Commands, overlay: str) -> None:
    app.silent("fim-overlay", "set", overlay)
    app.silent("fim-perms", "set", "all")
    app.said("fim-bind", "add", "ro", "/etc/hostname", "/opt/deep/name")
    app.said("fim-bind", "add", "ro", "/usr", "/opt/deep/usr")
    assert shell(app, "cat /opt/deep/name", "fim-exec") == Path("/etc/hostname").read_text()
    assert app.session.output("fimctl", "upper", "status", app.image) == "nothing was changed\n"
    app.output("fim-layer", "commit", "layer")
    assert list((app.data / "layers").iterdir()) == []
    shell(app, "echo x >/opt/mine; rm /etc/release", "fim-exec")
    app.output("fim-layer", "commit", "layer")
    app.silent("fim-perms", "clear")
    app.said("fim-bind", "del", "1")
    app.said("fim-bind", "del", "0")
    assert shell(app, "ls /opt") == "mine\n"
    assert len(list((app.data / "layers").iterdir())) == 1


def test_one_that_is_made_where_something_was_removed_leaves_it_removed(app: Commands) -> None:
    app.said("fim-bind", "add", "ro", "/etc/hostname", "/etc/release")
    shell(app, "cat /etc/release", "fim-exec")
    app.said("fim-bind", "del", "0")
    shell(app, "rm /etc/release", "fim-exec")
    app.said("fim-bind", "add", "ro", "/etc/hostname", "/etc/release")
    shell(app, "cat /etc/release", "fim-exec")
    app.said("fim-bind", "del", "0")
    app.output("fim-layer", "commit", "layer")
    done = app.session.run(app.image, "fim-exec", "cat", "/etc/release")
    assert "No such file" in done.stderr


def test_the_runtime_directory_is_there_and_nobodys_but_the_callers(app: Commands) -> None:
    runtime = app.session.directory / "runtime"
    variables = {"XDG_RUNTIME_DIR": "/run/user/7"}
    script = "stat -c %a $XDG_RUNTIME_DIR; echo x >$XDG_RUNTIME_DIR/file; ls $XDG_RUNTIME_DIR"
    for command in ("fim-exec", "fim-root"):
        given = Commands(app.session, app.image, variables)
        assert given.output(command, "sh", "-c", script) == "700\nfile\n"
    assert app.session.output("fimctl", "upper", "status", app.image) == "nothing was changed\n"
    assert not (runtime / "file").exists()


def test_a_temporary_directory_that_is_not_there_inside_is_not_named(app: Commands) -> None:
    place = Path("/var/tmp")
    script = "echo ${TMPDIR-none}"

    def named(where: str) -> str:
        return Commands(app.session, app.image, {"TMPDIR": where}).output(
            "fim-exec", "sh", "-c", script
        )

    assert named(str(place)) == "none\n"
    assert named("/tmp") == "/tmp\n"
    assert named("/usr") == "/usr\n"
    app.said("fim-env", "add", "TMPDIR=/elsewhere")
    assert named(str(place)) == "/elsewhere\n"


def test_every_user_inside_has_shared_memory(app: Commands) -> None:
    assert shell(app, "stat -c %a /dev/shm; echo x >/dev/shm/x; ls /dev/shm") == "1777\nx\n"
    assert not Path("/dev/shm/x").exists()


@pytest.fixture
def alone(app: Commands) -> Commands:
    """One whose root inside has a single id."""
    if os.getuid() != 0 or app.session.account.uid == 0:
        pytest.skip("root has ids, and who the tests run as may have some")
    if not PROGRAM.exists():
        pytest.skip("fimd's own program was not compiled")
    return app


GIVE = "echo x >/f; chown 7:7 /f && stat -c %u /f"


def test_root_without_subordinate_ids_gives_files_to_others_in_appearance(
    alone: Commands,
) -> None:
    expected = '0\nAPT::Sandbox::User "root";\n'
    assert shell(alone, f"{GIVE}; cat $APT_CONFIG") == expected
    alone.session.background(alone.image, "sleep 60", command="fim-root")
    assert alone.output("fim-instance", "exec", "0", "sh", "-c", "chown 7:7 /f") == ""
    refused = alone.session.run(alone.image, "fim-exec", "chown", "7:7", "/f")
    assert "Invalid argument" in refused.stderr
    assert "APT_CONFIG" not in shell(alone, "env", "fim-exec")


def test_what_it_lacks_is_told_once_for_each_image(alone: Commands) -> None:
    def told(image: Path, *words: str) -> str:
        done = alone.session.run(image, *words, "true")
        assert done.returncode == 0
        return done.stderr

    assert told(alone.image, "fim-exec") == ""
    [said] = told(alone.image, "fim-root").splitlines()
    assert said.startswith("W::")
    assert "files lose their owners" in said
    daemon = alone.session.daemon()
    os.kill(daemon, signal.SIGTERM)
    wait_for(lambda: daemon not in alone.session.daemons(), what="the daemon's end")
    assert told(alone.image, "fim-root") == ""
    assert told(alone.session.adopt(alone.image, "other"), "fim-root").count("\n") == 1


@pytest.mark.parametrize("lacks", ["filters", "program"])
def test_where_not_even_that_can_be_had_the_program_runs_all_the_same(
    alone: Commands, lacks: str
) -> None:
    refusing: list[str | Path] = []
    alone.session.background(alone.image, "sleep 60", command="fim-root", stderr=DEVNULL)
    if lacks == "filters":
        refusing = [alone.session.account.python, SUPPORT / "refusing.py", "--filters"]
    else:
        (alone.session.tree / "bin" / "entry").unlink()
    command = (*refusing, alone.image, "fim-root", "sh", "-c", f"{GIVE} || echo kept")
    done = alone.session.run(*command)
    assert (done.returncode, done.stdout) == (0, "kept\n")
    assert "Invalid argument" in done.stderr
    assert "give files to nobody" in done.stderr
    assert done.stderr.count("\n") == 2
