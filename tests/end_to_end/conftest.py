"""What several end-to-end tests make."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fimd.dwarfs.write import create
from tests.support.session import Session

MakeLayer = Callable[[str, dict[str, str]], Path]


@pytest.fixture
def make_layer(session: Session) -> MakeLayer:
    """Make a layer file of some texts, by a path in the session's working directory."""

    def make(name: str, files: dict[str, str]) -> Path:
        tree = session.directory / "trees" / name
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        target = session.directory / "work" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        create(tree, target, level=1)
        os.chown(target, session.account.uid, session.account.gid)
        return target

    return make
