"""What of the host an image's own bindings can show, where nobody has executed its file."""

import os
from pathlib import Path

import pytest

from fimd.flatimage.settings import Binding, BindingType
from fimd.launch.bindings import stored
from fimd.launch.ceiling import shows


def is_shown(source: str, home: Path, *, trusted: bool) -> bool:
    warnings: list[str] = []
    binding = Binding(BindingType.RW, source, "/inside")
    variables = {"HOME": str(home), "PWD": "/"}
    [bind] = stored([binding], variables, warnings, trusted=trusted)
    assert warnings == []
    return not shows(os.path.realpath(bind.source), bind.kept_from)


@pytest.mark.parametrize(
    "source", ["$HOME", "~/", "/", "$HOME/..", "$HOME/.ssh", "~/.gnupg/private-keys-v1.d", "~/link"]
)
def test_keys_in_the_home_are_shown_to_nobody_who_was_not_trusted(
    tmp_path: Path, source: str
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / "link").symlink_to(".ssh")
    assert not is_shown(source, tmp_path, trusted=False)
    assert is_shown(source, tmp_path, trusted=True)


@pytest.mark.parametrize("source", ["$HOME/Documents", "/mnt", "/tmp/x", "$HOME/.sshx"])
def test_what_holds_none_is_shown_as_the_image_asks(tmp_path: Path, source: str) -> None:
    assert is_shown(source, tmp_path, trusted=False)
