"""What a program puts in the place of a directory of the upper leads no overlay out of it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image_commands import Commands
from tests.support.overlays import INSTALLED
from tests.support.session import Session


@pytest.fixture
def victim(session: Session) -> Iterator[Path]:
    """A directory of the user's that no sandbox shows."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        for number in range(4):
            (directory / f"f{number}").write_text("precious")
        for path in (directory, *directory.iterdir()):
            os.chown(path, session.account.uid, session.account.gid)
        yield directory


@pytest.mark.parametrize("overlay", INSTALLED)
def test_a_directory_that_is_exchanged_for_a_link_leads_nowhere(
    session: Session, image: Path, victim: Path, overlay: str
) -> None:
    app = Commands(session, image)
    app.silent("fim-overlay", "set", overlay)
    upper = image.parent / f".{image.name}.data" / "root"
    script = (
        "mkdir /a && cd /a && for n in 0 1 2; do echo mine > f$n; done; cat f*; "
        f"mv {upper}/a {upper}/b && ln -s {victim} {upper}/a; "
        "rm -f f0; echo lost > f1; mv f2 moved; echo lost > f3; chmod 600 f3; mkdir new; cat f3"
    )
    said = session.run(image, "fim-exec", "sh", "-c", script)
    assert "precious" not in said.stdout
    assert "refused" not in said.stderr  # it is the overlay that was asked for
    assert sorted(os.listdir(victim)) == ["f0", "f1", "f2", "f3"]
    assert {path.read_text() for path in victim.iterdir()} == {"precious"}
