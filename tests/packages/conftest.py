"""Sessions with an image of a Debian."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages import bookworm
from tests.packages.systems import VARIABLES, Make
from tests.support.account import Account
from tests.support.image_commands import Commands
from tests.support.session import Session
from tests.support.subordinate_ids import FIRST, wrapped


@pytest.fixture
def make(new_session: Callable[..., Session], account: Account, tmp_path: Path) -> Make:
    def session(*, ids: bool, first: int = FIRST, image: Path | None = None) -> Commands:
        if account.uid == 0 and not ids:
            pytest.skip("root of the machine has all ids")
        source = image or bookworm.image()
        scratch = tmp_path / str(first)
        scratch.mkdir()
        wrap = wrapped(account, scratch, first) if ids and account.uid else []
        started = new_session(wrap=wrap)
        return Commands(started, started.adopt(source, "app.flatimage"), VARIABLES)

    return session
