"""Files of subordinate ids: a plain user can do with them what it can with its own."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.image_commands import Commands
from tests.support.overlays import INSTALLED
from tests.support.session import Session
from tests.support.subordinate_ids import FIRST, wrapped


@pytest.fixture
def app(
    new_session: Callable[..., Session], account: Account, tmp_path: Path, busybox_image: Path
) -> Commands:
    session = new_session(wrap=wrapped(account, tmp_path))
    return Commands(session, session.adopt(busybox_image, "app.flatimage"))


GIVE = (
    "mkdir /given; echo x >/given/file; chown 7:8 /given /given/file; "
    "chmod 4711 /given/file; chmod 0700 /given"
)
LOOK = "stat -c '%a %u:%g' /given /given/file"
GIVEN = "700 7:8\n4711 7:8\n"


def test_what_is_given_to_others_is_listed_and_thrown_away(app: Commands) -> None:
    app.output("fim-root", "sh", "-c", GIVE)
    given = app.data / "root" / "given"
    assert given.stat().st_uid == FIRST + 6
    shown = app.session.output("fimctl", "upper", "status", app.image)
    assert shown == "+ /given/\n+ /given/file\n2 added; 2 B of files\n"
    app.session.output("fimctl", "upper", "reset", "--yes", app.image)
    assert not given.exists()


@pytest.mark.parametrize("overlay", INSTALLED)
def test_another_user_inside_reads_and_executes_what_a_layer_has(
    app: Commands, overlay: str
) -> None:
    app.silent("fim-overlay", "set", overlay)
    etc = app.data / "root" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/:/bin/sh\ndaemon:x:7:7::/:/bin/sh\n")
    for made in (app.data, etc.parent, etc, etc / "passwd"):
        os.chown(made, app.session.account.uid, app.session.account.gid)
    app.output("fim-root", "sh", "-c", "mkdir -p /var; chown 7:7 /var")
    script = "id -u; cat /etc/release; echo x >/var/mine; stat -c %u /var/mine"
    done = app.session.run(app.image, "fim-root", "busybox", "su", "daemon", "-c", script)
    assert (done.stdout, done.stderr) == ("7\nsmall\n7\n", "")


@pytest.mark.parametrize("mode", ["binary", "layer", "file"])
def test_a_commit_keeps_owners_and_special_bits(app: Commands, mode: str) -> None:
    app.output("fim-root", "sh", "-c", GIVE)
    path = app.session.directory / "work" / "new.layer"
    app.output("fim-layer", "commit", mode, *([str(path)] if mode == "file" else []))
    variables = {"FIM_LAYERS": str(path)} if mode == "file" else {}
    again = Commands(app.session, app.image, variables)
    assert again.output("fim-root", "sh", "-c", LOOK) == GIVEN
    assert not (app.data / "root" / "given").exists()


def test_a_layer_shows_the_same_owners_where_the_range_is_another(
    app: Commands, new_session: Callable[..., Session], account: Account, tmp_path: Path
) -> None:
    app.output("fim-root", "sh", "-c", GIVE)
    app.output("fim-layer", "commit", "binary")
    scratch = tmp_path / "other"
    scratch.mkdir()
    other = new_session(wrap=wrapped(account, scratch, FIRST + 100_000))
    image = other.adopt(app.image, "app.flatimage")
    assert other.output(image, "fim-root", "sh", "-c", LOOK) == GIVEN


def test_a_copy_of_the_data_directory_shows_the_same_and_keeps_owners(app: Commands) -> None:
    app.output("fim-root", "sh", "-c", f"{GIVE}; echo x >/one; ln /one /two; rm /etc/release")
    app.output("fim-root", "sh", "-c", "rm -r /home; mkdir /home; touch -d @7 /one; mkfifo /fifo")
    app.output("fim-layer", "commit", "layer")
    app.output("fim-root", "sh", "-c", "mkdir -m 0 /closed; chown 9:9 /closed /given/file")
    (app.data / "tmp" / "mine").write_text("mine")
    copy = app.session.directory / "work" / "copy"
    app.session.output("fimctl", "data", "copy", app.image, copy)
    assert (copy / "tmp" / "mine").read_text() == "mine"
    shown = [
        Commands(app.session, app.image, variables).output("fim-root", "sh", "-c", script)
        for script in ("find / -xdev | sort", "stat -c '%n %a %u:%g %Y %h' /one /given/* /closed")
        for variables in ({}, {"FIM_DIR_DATA": str(copy)})
    ]
    assert shown[0] == shown[1]
    assert shown[2] == shown[3]
    assert (copy / "root" / "closed").stat().st_uid == FIRST + 8
    refused = app.session.run("fimctl", "data", "copy", app.image, copy)
    assert "is there already" in refused.stderr


def test_a_data_directory_is_measured_and_removed(app: Commands) -> None:
    app.output("fim-root", "sh", "-c", f"{GIVE}; head -c 3145728 /dev/zero >/big")
    sizes = json.loads(app.session.output("fimctl", "data", "size", "--json", app.image))
    assert sizes["changes"] == (3 << 20) + 2
    assert "3.0 MiB" in app.session.output("fimctl", "data", "size", app.image)
    running = app.session.background(app.image, "sleep 60")
    refused = app.session.run("fimctl", "data", "remove", "--yes", app.image)
    assert f"in use by process {running.pid}" in refused.stderr
    running.kill()
    mine = app.data / "letters"
    mine.write_text("mine")
    refused = app.session.run("fimctl", "data", "remove", "--yes", "--wait", "10", app.image)
    assert refused.returncode == 125
    assert "it holds letters, which is no part of a data directory" in refused.stderr
    assert mine.read_text() == "mine"
    assert (app.data / "root" / "big").exists()
    mine.unlink()
    app.session.output("fimctl", "data", "remove", "--yes", "--wait", "10", app.image)
    assert not app.data.exists()
    assert "there is none" in app.session.output("fimctl", "data", "remove", "--yes", app.image)
    assert app.output("fim-root", "cat", "/etc/release") == "small\n"


def test_owners_stay_when_the_overlay_changes(app: Commands) -> None:
    app.output("fim-root", "sh", "-c", GIVE)
    for overlay in (*INSTALLED, "bwrap"):
        app.silent("fim-overlay", "set", overlay)
        assert app.output("fim-root", "sh", "-c", LOOK) == GIVEN, overlay
        app.output("fim-root", "sh", "-c", "rm /etc/release; echo x >/etc/release")


def test_owners_stay_when_layers_become_one_and_when_one_is_exported(app: Commands) -> None:
    app.output("fim-root", "sh", "-c", GIVE)
    app.output("fim-layer", "commit", "layer")
    app.output("fim-root", "sh", "-c", "echo y >/other")
    app.output("fim-layer", "commit", "layer")
    app.session.output("fimctl", "layer", "squash", app.image, "1", "2")
    assert app.output("fim-root", "sh", "-c", LOOK) == GIVEN
    exported = app.session.directory / "work" / "exported"
    app.session.output("fimctl", "layer", "export", app.image, "1", exported)
    elsewhere = {"FIM_DIR_DATA": str(exported.with_name("data")), "FIM_LAYERS": str(exported)}
    again = Commands(app.session, app.image, elsewhere)
    assert again.output("fim-root", "sh", "-c", LOOK) == GIVEN


def test_a_layer_is_the_same_where_it_is_unpacked(
    app: Commands, new_session: Callable[..., Session], account: Account, tmp_path: Path
) -> None:
    app.output("fim-root", "sh", "-c", "mkdir /etc/old; echo > /etc/old/file")
    app.output("fim-layer", "commit", "binary")
    more = (
        f"{GIVE}; ln /given/file /given/link; mkfifo -m 620 /given/fifo; chmod 2755 /etc; "
        "ln -s file /given/symlink; chown -h 9:9 /given/symlink; rm /bin/wc; rm -r /etc/old; "
        "mkdir /etc/old; chown 65000:1 /etc/release; touch -d 2001-02-03 /given/file /given"
    )
    app.output("fim-root", "sh", "-c", more)
    app.output("fim-layer", "commit", "binary")
    places = "/given /bin /etc/old /etc/release"
    look = f"find {places} -exec stat -c '%n %f %u:%g %Y' {{}} +; stat -c %h%f /given/* /etc"
    seen = app.output("fim-root", "sh", "-c", look)
    scratch = tmp_path / "other"
    scratch.mkdir()
    wrap = wrapped(account, scratch)
    at = wrap.index("-ec") + 1
    wrap[at] = f"mount --bind /dev/null /dev/fuse\n{wrap[at]}"
    other = new_session(wrap=wrap)
    image = other.adopt(app.image, "app.flatimage")
    done = other.run(image, "fim-root", "sh", "-c", look)
    assert "/dev/fuse is not the FUSE device, so layers are unpacked" in done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(seen.splitlines())
    store = other.directory / "home" / ".cache" / "fimd" / "layers"
    assert len(list(store.glob("sha256-*"))) == 3
    assert other.output("fimctl", "prune").endswith("3 directories removed that nobody uses\n")
    assert not list(store.glob("sha256-*"))
