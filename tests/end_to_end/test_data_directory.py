"""Where an image's changes are kept: beside it, or with the user who can't write there."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.session import Session
from tests.support.tmpfs import tmpfs

SHELL = ("fim-exec", "sh", "-c")


@pytest.fixture
def medium(session: Session, busybox_image: Path) -> Iterator[Commands]:
    """An image on a file system that is mounted read-only."""
    with tmpfs(session.directory.with_name(f"{session.directory.name}-medium"), "64m") as point:
        shutil.copy(busybox_image, point / "app.flatimage")
        subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True, timeout=60)
        yield Commands(session, point / "app.flatimage")
        session.wait_until_clean()


@pytest.fixture(params=["closed", "another's"])
def foreign(
    session: Session, busybox_image: Path, request: pytest.FixtureRequest
) -> Iterator[Commands]:
    """An image in a directory that this user may not write."""
    if session.account.uid == 0:
        pytest.skip("root may write every directory")
    if os.getuid() and request.param == "another's":
        pytest.skip("only root can have one of another user")
    directory = session.directory / "others"
    directory.mkdir()
    shutil.copy(busybox_image, directory / "app.flatimage")
    if request.param == "closed":
        os.chown(directory, session.account.uid, session.account.gid)
    directory.chmod(0o555 if request.param == "closed" else 0o755)
    yield Commands(session, directory / "app.flatimage")
    directory.chmod(0o755)  # so that it can be removed


def at_home(app: Commands) -> Path:
    """The data directory that this user has for the image."""
    [found] = (app.session.directory / "home" / ".local" / "share" / "fimd" / "data").iterdir()
    return found


def test_an_image_on_a_read_only_medium_keeps_its_changes_with_the_user(medium: Commands) -> None:
    app = medium
    app.silent(*SHELL, "echo kept > /kept")
    assert app.output("fim-exec", "cat", "/kept") == "kept\n"
    assert (at_home(app) / "root" / "kept").read_text() == "kept\n"
    assert os.listdir(app.image.parent) == ["app.flatimage"]
    assert app.output("fim-overlay", "show") == "BWRAP\n"
    for words in (["fim-overlay", "set", "unionfs"], ["fim-layer", "commit", "binary"]):
        done = app.session.run(app.image, *words)
        assert done.returncode == 125
        assert f"{app.image} cannot be changed (Read-only file system)" in done.stderr
    assert app.said("fim-layer", "commit", "layer")[-1] == "Finished erasing files"
    managed = at_home(app) / "layers" / "layer-000.layer"
    assert app.output("fim-layer", "list").splitlines()[1].endswith(f":{managed}")
    assert app.output("fim-exec", "cat", "/kept") == "kept\n"


def test_an_image_in_another_users_directory_too(foreign: Commands) -> None:
    app = foreign
    app.silent(*SHELL, "echo mine > /mine")
    data = at_home(app)
    assert "+ /mine\n" in app.session.output("fimctl", "upper", "status", app.image)
    assert f"changes in {data}/root" in app.session.output("fimctl", "stack", app.image)
    assert app.output(*SHELL, "echo $FIM_DIR_DATA") == f"{data}\n"
    process = app.session.background(app.image, "sleep 60")
    assert app.output("fim-instance", "list") == f"0:{process.pid}\n"
    assert app.output("fim-instance", "exec", "0", "cat", "/mine") == "mine\n"
    process.kill()
    process.wait()
    copy = app.session.adopt(app.image, "app.flatimage")
    assert app.session.run(copy, "fim-exec", "cat", "/mine").returncode == 1
    assert copy.with_name(".app.flatimage.data").is_dir()


def test_the_callers_variables_say_where_that_is(foreign: Commands) -> None:
    app = foreign
    app.silent("fim-exec", "true")  # the daemon runs, with another XDG_DATA_HOME
    other = app.session.directory / "work" / "other"
    variables = {"XDG_DATA_HOME": str(other)}
    script = "echo there > /there"
    app.session.output(app.image, *SHELL, script, variables=variables)
    [data] = (other / "fimd" / "data").iterdir()
    assert (data / "root" / "there").exists()
    shown = app.session.output("fimctl", "stack", app.image, variables=variables)
    assert f"changes in {data}/root" in shown
    variables["FIM_DIR_DATA"] = str(app.session.directory / "work" / "data")
    app.session.output(app.image, *SHELL, script, variables=variables)
    assert (app.session.directory / "work" / "data" / "root" / "there").exists()
    shown = app.session.output("fimctl", "stack", app.image, variables=variables)
    assert f"changes in {variables['FIM_DIR_DATA']}/root" in shown


def test_changes_beside_an_image_that_became_read_only_are_not_left_out_in_silence(
    session: Session, image: Path
) -> None:
    if session.account.uid == 0:
        pytest.skip("root may write every directory")
    app = Commands(session, image)
    app.silent(*SHELL, "echo before > /before")
    app.data.chmod(0o555)
    done = session.run(image, *SHELL, "ls /before || echo gone")
    app.data.chmod(0o755)
    assert done.stdout == "gone\n"
    assert any(
        f"the changes in {app.data}/root are left out" in line for line in texts(done.stderr)
    )
    assert app.output("fim-exec", "cat", "/before") == "before\n"


@pytest.mark.parametrize("below", ["", "data"])
def test_what_another_user_has_made_where_everybody_may_write_is_not_used(
    session: Session, image: Path, below: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make something another user's")
    strange = session.directory / "strange"
    strange.mkdir()
    strange.chmod(0o777)
    os.chown(strange, 65534, 65534)
    variables = {"FIM_DIR_DATA": str(strange / below)}
    for words in (["fim-exec", "true"], ["fim-layer", "commit", "layer"]):
        done = session.run(image, *words, variables=variables)
        assert done.returncode == 125
        assert f"{strange} lies where everybody may write, and another user has made" in done.stderr
        assert "name a directory of your own by FIM_DIR_DATA" in done.stderr
    assert os.listdir(strange) == []


def test_what_could_not_be_removed_is_told_and_removed_once_that_can_be(
    session: Session, image: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make something another user's")
    session.output(image, "fim-exec", "true")
    tmp = image.parent / f".{image.name}.data" / "tmp"
    for name in ("lost-0123", "lost-4567"):
        (tmp / name).mkdir()
        (tmp / name / "file").touch()
        os.chown(tmp / name, session.account.uid, session.account.gid)
    if session.account.uid:
        os.chown(tmp / "lost-4567", 65534, 65534)
    done = session.run("fimctl", "doctor", "--json", image)
    [found] = [item for item in json.loads(done.stdout)["space"] if item["name"] == "lost changes"]
    assert (found["verdict"], "lost-0123, lost-4567" in found["detail"]) == ("note", True)
    assert "fimctl prune IMAGE" in found["remedy"]
    done = session.run("fimctl", "prune", image)
    if session.account.uid:
        assert done.returncode == 125
        assert f"{tmp}/lost-4567 can't be removed" in done.stderr
        assert os.listdir(tmp) == ["lost-4567"]
        os.chown(tmp / "lost-4567", session.account.uid, session.account.gid)
        done = session.run("fimctl", "prune", image)
        assert "1 directory removed" in done.stdout
    assert (done.returncode, os.listdir(tmp)) == (0, [])
    session.wait_until_clean()
