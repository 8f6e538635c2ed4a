"""Changes on a file system that keeps names and bytes alone, as exFAT does, are not lost."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED
from tests.support.plain_disk import plain_disk
from tests.support.session import Session, wait_for

CHANGE = "rm /etc/release; rm -r /home; mkdir /home; echo x >/home/new"
TREE = "ls /home /etc; cat /home/new"
KEEPS_NO = "keeps no symbolic links, no hard links, no modes: "


@pytest.fixture
def data(session: Session) -> Iterator[Path]:
    """A data directory on such a file system."""
    base = session.directory.with_name(f"{session.directory.name}-disk")
    base.mkdir()
    with plain_disk(base, session.account.uid, session.account.gid) as point:
        yield point / "data"
        session.wait_until_clean()


@pytest.mark.parametrize("overlay", INSTALLED)
def test_what_was_changed_is_there_at_every_start_and_under_every_overlay(
    session: Session, busybox_image: Path, data: Path, overlay: str
) -> None:
    image = session.adopt(busybox_image, "app.flatimage")

    def run(script: str, overlay: str = overlay) -> str:
        variables = {"FIM_DIR_DATA": str(data), "FIM_OVERLAY": overlay}
        done = session.run(image, "fim-root", "sh", "-c", script, variables=variables)
        assert done.returncode == 0, done
        assert done.stderr.count(KEEPS_NO) == 1
        return done.stdout

    shown = run(f"{CHANGE}; {TREE}")
    assert "release" not in shown
    assert shown.endswith("x\n")
    for other in (overlay, *INSTALLED, overlay):
        assert run(TREE, other) == shown
    variables = {"FIM_DIR_DATA": str(data)}
    done = session.run(image, "fim-layer", "commit", "layer", variables=variables)
    assert done.returncode == 0, done
    assert os.listdir(data / "root") == []
    wait_for(lambda: not os.listdir(data / "tmp"), what="the removal of the former upper")
    for other in INSTALLED:
        assert run(TREE, other) == shown


def test_doctor_tells_what_the_file_system_does_not_keep(
    session: Session, busybox_image: Path, data: Path
) -> None:
    image = session.adopt(busybox_image, "app.flatimage")
    done = session.run("fimctl", "doctor", "--json", image, variables={"FIM_DIR_DATA": str(data)})
    assert done.returncode == 1
    [found] = [
        item for item in json.loads(done.stdout)["backends"] if item["name"] == "file system"
    ]
    assert found["verdict"] == "problem"
    assert KEEPS_NO in found["detail"]
    assert "set FIM_DIR_DATA" in found["remedy"]
    done = session.run("fimctl", "doctor", "--json", image)
    [found] = [
        item for item in json.loads(done.stdout)["backends"] if item["name"] == "file system"
    ]
    assert found["verdict"] == "ok"
