"""What a program finds inside: who it is, its variables, and what of the host it sees."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.overlays import INSTALLED
from tests.support.session import Session

NAMESPACES = ("cgroup", "ipc", "net", "pid", "uts")


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


@pytest.fixture
def home(session: Session) -> Iterator[Path]:
    """A home that is not below /tmp, which every sandbox shares with the host."""
    path = Path(tempfile.mkdtemp(prefix="fimd-home-", dir="/var/tmp"))
    (path / "file").write_text("mine\n")
    for made in (path, path / "file"):
        os.chown(made, session.account.uid, session.account.gid)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def shell(app: Commands, script: str, command: str = "fim-exec", **variables: str) -> str:
    return app.session.output(app.image, command, "sh", "-c", script, variables=variables)


def test_the_boot_program_gets_stored_words_then_those_of_the_command_line(app: Commands) -> None:
    app.silent("fim-boot", "set", "$TOOL", "$HOME", "b c")
    variables = {"TOOL": "echo"}
    done = app.session.output(app.image, "d", "fim-exec", variables=variables)
    assert done == "$HOME b c d fim-exec\n"
    app.silent("fim-boot", "set", "sh", "-c", "exit 7")
    assert app.session.run(app.image).returncode == 7
    app.silent("fim-boot", "clear")
    assert app.output("-c", "echo $0 $1", "a", "b c") == "a b c\n"


def test_an_interactive_bash_has_the_images_prompt(app: Commands) -> None:
    script = b'echo "<$PS1>"\n'
    done = app.session.run(app.image, "-i", given=script)
    assert done.stdout == "<[flatimage-blueprint] \\W > >\n"
    app.said("fim-env", "add", r'PS1=\u@\h "x" > ')
    done = app.session.run(app.image, "-i", given=script)
    assert done.stdout == '<\\u@\\h "x" > >\n'
    assert shell(app, 'cat "$BASHRC_FILE"') == 'export PS1="\\u@\\h \\"x\\" > "\n'


def test_who_a_program_is(app: Commands) -> None:
    script = 'echo "$(id -u):$(id -g):$(whoami):$HOME:$USER"; cat /etc/passwd'
    account, environment = app.session.account, app.session.environment
    root = "0:0:root:/root:root"
    mine = f"{account.uid}:{account.gid}:{account.name}:{environment['HOME']}:{account.name}"
    expected = root if account.uid == 0 else mine

    def identity(command: str = "fim-exec", **variables: str) -> str:
        who, passwd = shell(app, script, command, **variables).splitlines()
        uid, gid, name, home, _ = who.split(":")
        assert passwd.split(":")[:6] == [name, "x", uid, gid, name, home]
        assert len(passwd.split(":")) == 7
        return who

    assert identity() == expected
    assert identity("fim-root") == root
    assert identity(FIM_ROOT="1") == root
    assert identity(FIM_ROOT="yes") == expected
    app.said("fim-env", "set", "UID=1234", "GID=x", "USER=me", "HOME=$FIM_DIR_SELF/home")
    changed = f"1234:{account.gid}:me:{app.image.parent}/home:me"
    assert identity() == (root if account.uid == 0 else changed)
    assert identity("fim-root") == root
    app.said("fim-env", "set", "UID=0")
    assert identity() == root


def test_uid_and_gid_are_changed_each_on_its_own_and_groups_are_the_hosts(app: Commands) -> None:
    account = app.session.account
    app.said("fim-env", "set", "GID=77")
    shown = shell(app, "id -u; id -g; cat /etc/group")
    expected = "0\n0\n" if account.uid == 0 else f"{account.uid}\n77\n"
    assert shown == expected + Path("/etc/group").read_text()


def test_without_a_home_in_the_environment_it_is_that_of_passwd(app: Commands) -> None:
    words = ("env", "-u", "HOME", "-u", "USER", app.image, "fim-exec", "sh", "-c")
    shown = app.session.output(*words, "echo $HOME $USER")
    entry = pwd.getpwuid(app.session.account.uid)
    assert shown == f"{entry.pw_dir} {entry.pw_name}\n"
    for command in (["fim-env", "list"], ["fim-layer", "list"], ["fim-overlay", "show"]):
        app.session.output("env", "-u", "HOME", app.image, *command)


@pytest.mark.parametrize("overlay", INSTALLED)
def test_an_image_may_have_any_path(session: Session, busybox_image: Path, overlay: str) -> None:
    # fuse-overlayfs splits its upper directory at colons, whatever they are preceded by
    separators = b"," if overlay == "overlayfs" else b",:\\"
    strange = os.fsdecode(b"a" + separators + b"=d e%s'\"$(x)`\n\xff")
    folder = session.directory / "work" / strange
    folder.mkdir()
    os.chown(folder, session.account.uid, session.account.gid)
    image = session.adopt(busybox_image, f"{strange}/{strange}")
    neighbour = session.adopt(busybox_image, f"{strange}/{strange}2")
    variables = {"FIM_OVERLAY": overlay}
    script = "echo x > /written; cat /etc/release"
    for app in (image, neighbour):
        words = (app, "fim-exec", "sh", "-c", script)
        assert session.output(*words, variables=variables) == "small\n"
    said = session.output(image, "fim-layer", "commit", "layer")
    assert "Finished erasing files" in said
    running = session.background(image, "sleep 60", variables=variables)
    assert session.output(image, "fim-instance", "list") == f"0:{running.pid}\n"
    assert session.output(neighbour, "fim-instance", "list") == ""
    assert session.output(image, "fim-instance", "exec", "0", "cat", "/written") == "x\n"


def test_the_exit_code_is_the_programs_for_root_and_boot_too(app: Commands) -> None:
    def code(*words: str) -> int:
        return app.session.run(app.image, *words).returncode

    assert code("fim-root", "sh", "-c", "exit 3") == 3
    assert code("fim-root", "no-such-program") == 127
    assert code("fim-root", "/etc/release") == 126
    app.silent("fim-boot", "set", "no-such-program")
    assert code() == 127
    app.silent("fim-boot", "set", "sh", "-c", "kill -9 $$")
    assert code() == 137


def test_a_directory_that_is_not_there_inside_gives_way_to_the_home_or_the_root(
    app: Commands, home: Path
) -> None:
    def where(**variables: str) -> str:
        done = app.session.run(app.image, "fim-exec", "pwd", directory=home, variables=variables)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    if app.session.account.uid == 0:
        assert where() == "/root\n"
        return
    assert where(HOME="/usr") == "/usr\n"
    assert where(HOME=str(home)) == "/\n"
    app.silent("fim-perms", "add", "home")
    assert where(HOME=str(home)) == f"{home}\n"


def test_the_shell_is_the_bundled_one_or_what_is_stored(app: Commands) -> None:
    assert shell(app, "echo $SHELL") == f"{app.session.tree}/bin/bash\n"
    app.said("fim-env", "add", "SHELL=/bin/sh")
    *_, shown = shell(app, "cat /etc/passwd; echo $SHELL").splitlines()
    assert shown == "/bin/sh"
    assert shell(app, "cat /etc/passwd").endswith(":/bin/sh\n")


def test_variables_of_the_caller_of_the_image_and_of_flatimage(app: Commands) -> None:
    app.said(
        *("fim-env", "add", "A=$FOO b  c", "FOO=stored", "K$FOO=v", "J={raw}"),
        *("TERM=dumb", "PATH=/extra:$PATH", "USER=nobody", "SAID=$(cat /etc/release; echo b)"),
    )
    script = 'printf "%s\n" "$A" "$FOO" "$J" "$TERM" "$OTHER" "$SAID"; echo "$PATH"'
    *values, path = shell(app, script, FOO="mine", OTHER="kept").splitlines()
    assert values == ["mine b  c", "stored", "{raw}", "dumb", "kept", "small", "b"]
    assert "K$FOO=v" in app.output("fim-exec", "env").splitlines()
    assert path.startswith(f"/extra:{app.session.environment['PATH']}:")
    assert path.endswith(f":{app.session.tree}/bin:{app.session.tree}/sbin")


def test_variables_that_are_the_same_for_all(app: Commands) -> None:
    script = 'echo "$TERM|${LD_LIBRARY_PATH-}${LD_PRELOAD-none}|$XDG_RUNTIME_DIR"'
    variables = {"TERM": "vt100", "LD_LIBRARY_PATH": "/mine", "LD_PRELOAD": ""}
    run = app.session.environment["XDG_RUNTIME_DIR"]
    assert shell(app, script, **variables) == f"xterm|none|{run}\n"
    assert shell(app, script) == f"xterm|none|{run}\n"


def test_the_variables_that_tell_where_things_are(app: Commands) -> None:
    lines = shell(app, "env").splitlines()
    found = dict(line.split("=", 1) for line in lines if line.startswith("FIM_"))
    tree, instance = app.session.tree, found["FIM_DIR_INSTANCE"]
    assert instance == f"{tree}/instance/{found['FIM_PID']}"
    assert (
        found.items()
        >= {
            "FIM_BIN_SELF": str(app.image),
            "FIM_DIR_SELF": str(app.image.parent),
            "FIM_DIR_DATA": str(app.data),
            "FIM_DIR_LAYERS": f"{app.data}/layers",
            "FIM_DIR_GLOBAL": str(app.session.directory / "fim"),
            "FIM_DIR_APP": str(tree),
            "FIM_DIR_APP_BIN": f"{tree}/bin",
            "FIM_DIR_APP_SBIN": f"{tree}/sbin",
            "FIM_DIR_RUNTIME": f"{app.session.directory}/fim/run",
            "FIM_DIR_RUNTIME_HOST": f"{app.session.directory}/fim/run/host",
            "FIM_DIST": "BLUEPRINT",
            "FIM_OFFSET": "4096",
        }.items()
    )
    assert {"FIM_VERSION", "FIM_COMMIT", "FIM_TIMESTAMP"} <= set(found)


def test_the_hosts_root_is_not_to_be_seen(app: Commands) -> None:
    app.silent("fim-perms", "set", "all")
    assert app.session.run(app.image, "fim-exec", "ls", "/tmp/fim/run/host").returncode != 0
    assert shell(app, "ls /usr") == ""


def test_the_home_is_there_by_permission_only(app: Commands, home: Path) -> None:
    cat = (app.image, "fim-exec", "cat", f"{home}/file")
    variables = {"HOME": str(home)}
    done = app.session.run(*cat, variables=variables)
    assert "No such file or directory" in done.stderr
    app.silent("fim-perms", "add", "home")
    done = app.session.run(*cat, variables=variables)
    if app.session.account.uid == 0:
        assert "No such file or directory" in done.stderr
        return
    assert done.stdout == "mine\n"
    shell(app, f"echo more >> {home}/file", HOME=str(home))
    assert (home / "file").read_text() == "mine\nmore\n"
    done = app.session.run(app.image, "fim-root", *cat[2:], variables=variables)
    assert "No such file or directory" in done.stderr


def test_devices_are_the_hosts_by_permission_only(app: Commands) -> None:
    hosts = sorted(os.listdir("/dev"))
    assert shell(app, "ls -A /dev").splitlines() != hosts
    app.silent("fim-perms", "add", "dev")
    assert sorted(shell(app, "ls -A /dev").splitlines()) == hosts


def test_a_start_with_every_permission_and_namespace(app: Commands) -> None:
    app.silent("fim-perms", "set", "all")
    app.silent("fim-unshare", "set", "all")
    variables = {
        "DISPLAY": ":9",
        "XAUTHORITY": str(app.session.directory / "bus.conf"),
        "WAYLAND_DISPLAY": "wayland-9",
    }
    script = "echo $DISPLAY $WAYLAND_DISPLAY $PULSE_SERVER; test -s $XAUTHORITY && echo there"
    run = app.session.environment["XDG_RUNTIME_DIR"]
    assert shell(app, script, **variables) == f":9 wayland-9 unix:{run}/pulse/native\nthere\n"


def test_each_namespace_can_be_the_images_own(app: Commands) -> None:
    def own() -> set[str]:
        links = shell(app, "for n in cgroup ipc net pid uts; do readlink /proc/self/ns/$n; done")
        inside = dict(link.split(":") for link in links.split())
        outside = dict(os.readlink(f"/proc/self/ns/{kind}").split(":") for kind in NAMESPACES)
        return {kind for kind in NAMESPACES if inside[kind] != outside[kind]}

    assert own() == {"pid"}
    for kind in NAMESPACES:
        app.silent("fim-unshare", "set", kind)
        assert own() == {kind, "pid"}
    app.silent("fim-unshare", "clear")
    app.silent("fim-perms", "add", "processes")
    assert own() == set()
    app.silent("fim-unshare", "set", "pid")
    assert own() == {"pid"}


def test_bindings(app: Commands) -> None:
    work = app.session.directory / "work"
    for name in ("ro", "rw dir"):
        (work / name).mkdir()
        (work / name / "file").write_text(f"{name}\n")
        os.chown(work / name, app.session.account.uid, app.session.account.gid)
    app.said("fim-bind", "add", "ro", "$WORK/ro", "/mnt/ro")
    app.said("fim-bind", "add", "rw", "$WORK/rw dir", "/mnt/rw$SUFFIX")
    app.said("fim-bind", "add", "ro", f"{work}/ro/file", "/mnt/file")
    app.said("fim-bind", "add", "dev", "/dev/null", "/mnt/null")
    app.said("fim-bind", "add", "ro", "/nowhere", "/mnt/nowhere")
    variables = {"WORK": str(work), "SUFFIX": "X"}
    script = "cat /mnt/ro/file /mnt/rwX/file /mnt/file; touch /mnt/rwX/new; ls /mnt"
    shown = shell(app, script, **variables)
    assert shown == "ro\nrw dir\nro\nfile\nnull\nro\nrwX\n"
    assert (work / "rw dir" / "new").exists()
    assert shell(app, "echo x > /mnt/null && echo written", **variables) == "written\n"
    done = app.session.run(app.image, "fim-exec", "touch", "/mnt/ro/x", variables=variables)
    assert "Read-only file system" in done.stderr
    for _ in range(5):
        app.said("fim-bind", "del", "0")
    assert shell(app, "cat /mnt/file; ls /mnt/ro") == ""


def test_debugging_tells_of_the_start_on_stdout(app: Commands) -> None:
    app.silent("fim-perms", "set", "home,shm")
    app.silent("fim-unshare", "set", "ipc")
    names = {"bwrap": "BWRAP", "unionfs": "UNIONFS_FUSE", "overlayfs": "FUSE_OVERLAYFS"}
    for overlay in INSTALLED:
        variables = {"FIM_DEBUG": "1", "FIM_OVERLAY": overlay}
        done = app.session.run(app.image, "fim-exec", "echo", "up", variables=variables)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines.pop() == "up"
        assert all(line.startswith(("D::", "I::")) for line in lines)
        said = texts("\n".join(lines))
        offset = 4096 + (4 << 20) + 8
        assert said.count(f"Mounting layer from 'app.flatimage' with offset '{offset}'") == 1
        assert f"Overlay type: {names[overlay]}" in said
        assert {"casefold is disabled", "PERM(HOME)", "PERM(SHM)", "UNSHARE(IPC)"} <= set(said)
        overlays = [line for line in said if line.startswith("Overlay layer '")]
        assert len(overlays) == (1 if overlay == "bwrap" else 0)


def test_nothing_but_a_one_is_debugging(app: Commands) -> None:
    for value in ("", "0", "2", "yes"):
        assert shell(app, "echo up", FIM_DEBUG=value) == "up\n"


def test_debugging_tells_each_layer_as_they_are_listed(app: Commands) -> None:
    work = app.session.directory / "work"
    for name in ("one", "two words"):
        (work / name).mkdir()
        (work / name / name.replace(" ", "-")).write_text(f"{name}\n")
        app.session.run(app.image, "fim-layer", "create", str(work / name), str(work / f"{name}.l"))
    (work / "bad").write_text("no layer\n")
    shell(app, "echo > /committed")
    app.session.run(app.image, "fim-layer", "commit", "binary")
    variables = {
        "WORK": str(work),
        "FIM_LAYERS": "$WORK/one.l:$(echo $WORK)/two words.l:$WORK/bad:$WORK/missing",
    }
    script = "cat /one /two-words"
    done = app.session.run(app.image, "fim-exec", "sh", "-c", script, variables=variables)
    assert done.stdout == "one\ntwo words\n"
    bad, missing = texts(done.stderr)
    assert bad.startswith(f"Skipping invalid dwarfs filesystem '{work}/bad'")
    assert missing.startswith(f"Skipping '{work}/missing'")
    listed = app.session.run(app.image, "fim-layer", "list", variables=variables)
    assert listed.returncode == 0
    expected = []
    for line in listed.stdout.splitlines():
        _, offset, _, path = line.split(":", 3)
        expected.append(f"Mounting layer from '{Path(path).name}' with offset '{offset}'")
    assert len(expected) == 4
    done = app.session.run(app.image, "fim-exec", "true", variables={**variables, "FIM_DEBUG": "1"})
    said = texts(done.stdout)
    assert [line for line in said if line.startswith("Mounting layer")] == expected
    assert len({line for line in said if line.startswith("Overlay layer")}) == 4
    assert texts(done.stderr) == [bad, missing]


def test_casefold_lies_over_the_kernels_overlay_as_debugging_tells(app: Commands) -> None:
    app.silent("fim-casefold", "on")
    assert shell(app, "echo up > /Spelled; cat /SPELLED") == "up\n"
    done = app.session.run(app.image, "fim-exec", "true", variables={"FIM_DEBUG": "1"})
    assert "Overlay type: BWRAP" in texts(done.stdout)
    assert "casefold is enabled" in texts(done.stdout)
    assert done.stderr == ""


def test_casefold_can_keep_the_spelling(app: Commands) -> None:
    app.silent("fim-casefold", "preserve")
    script = "echo x > /MyFile && cat /myfile && ls / | grep -i myfile"
    assert shell(app, script) == "x\nMyFile\n"


def test_a_closed_pipe_ends_a_program_quietly(app: Commands) -> None:
    process = app.session.start("sh", "-c", f"{app.image} fim-exec seq 1000000 | head -n 1 >&2")
    assert process.wait(30) == 0
    assert shell(app, "trap") == ""
