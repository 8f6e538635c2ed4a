"""What a program leaves for another user of the machine makes nobody the user that ran it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.session import Session


@pytest.mark.parametrize("given", ["", "given"])
def test_nobody_else_comes_to_a_program_with_a_set_user_id_bit(
    session: Session, busybox_image: Path, given: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    image = session.adopt(busybox_image, "app.flatimage")
    data = session.directory / "work" / (given or f".{image.name}.data")
    variables = {"FIM_DIR_DATA": str(data)} if given else {}
    script = "cp /bin/busybox /left; chmod 4755 /left"
    session.output(image, "fim-exec", "sh", "-c", script, variables=variables)
    left = data / "root" / "left"
    assert left.stat().st_mode & 0o7777 == 0o4755
    for command in ([str(left), "id"], ["ls", str(data)]):
        words = ["sh", "-c", '"$@"', "sh", *command]
        other: dict[str, Any] = {"user": 12345, "group": 12345, "extra_groups": []}
        done = subprocess.run(words, capture_output=True, text=True, check=False, **other)
        assert "Permission denied" in done.stderr


@pytest.fixture
def closed() -> Iterator[Path]:
    """A directory that not everybody may write to, nor to any above it."""
    if os.getuid() != 0:
        pytest.skip("only root may make links for another user")
    path = Path(tempfile.mkdtemp(prefix="fimd-test-", dir="/opt"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_a_link_of_another_users_beside_an_image_leads_nowhere(
    session: Session, busybox_image: Path, closed: Path
) -> None:
    strangers, own = closed / "strangers", closed / "own"
    (own / "root").mkdir(parents=True)
    (own / "root" / "file").write_text("precious\n")
    strangers.mkdir()
    image = Path(shutil.copy(busybox_image, strangers / "app.flatimage"))
    link = strangers / f".{image.name}.data"
    link.symlink_to(own)
    for path in (strangers, image, link):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    for path in (own, own / "root", own / "root" / "file"):
        os.chown(path, session.account.uid, session.account.gid)
    for command in ((image, "fim-exec", "cat", "/file"), ("fimctl", "data", "remove", "-y", image)):
        done = session.run(*command)
        assert (done.returncode != 0, done.stdout) == (True, ""), done
        assert f"{link} is a link" in done.stderr
    assert [path.name for path in own.iterdir()] == ["root"]
    assert (own / "root" / "file").read_text() == "precious\n"
    os.chown(link, session.account.uid, session.account.gid, follow_symlinks=False)
    assert session.output(image, "fim-exec", "cat", "/file") == "precious\n"
