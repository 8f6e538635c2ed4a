"""Everything is mounted in the user's namespace: nobody needs a setuid helper or its limits."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.overlays import INSTALLED
from tests.support.programs import all_but
from tests.support.session import Session

INSTANCES = 20


@pytest.fixture
def bare(new_session: Callable[..., Session], account: Account, tmp_path: Path) -> Session:
    """A session without fusermount3 on PATH, in which no setuid bit has any effect."""
    wrap = ["setpriv", "--no-new-privs"]
    if account.uid != os.getuid():
        wrap += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    session = new_session(wrap=wrap)
    programs = all_but(session.directory / "programs", "fusermount3", "fusermount")
    session.settings = {**session.settings, "PATH": f"{session.directory}/bin:{programs}"}
    return session


@pytest.mark.parametrize("overlay", INSTALLED)
def test_twenty_instances_and_a_commit_go_without_fusermount3(
    bare: Session, busybox_image: Path, overlay: str
) -> None:
    image = bare.adopt(busybox_image, "app.flatimage")
    assert shutil.which("fusermount3", path=bare.environment["PATH"]) is None
    bare.output(image, "fim-overlay", "set", overlay)
    programs = [
        bare.background(image, f"echo {number} > /n{number}; sleep 60")
        for number in range(INSTANCES)
    ]
    assert len(bare.objects("ps")) == INSTANCES
    assert len(bare.objects("layers")) == 1
    last = f"/n{INSTANCES - 1}"
    assert bare.output(image, "fim-exec", "cat", last) == f"{INSTANCES - 1}\n"
    for program in programs:
        program.kill()
        program.wait()
    bare.wait_until_clean()
    bare.output(image, "fim-layer", "commit", "layer")
    assert bare.output(image, "fim-exec", "cat", last) == f"{INSTANCES - 1}\n"
    bare.wait_until_clean()
