"""What of the host an image's own bindings can show, where nobody has executed its file."""

from pathlib import Path

import pytest

from fimd.flatimage.settings import Binding, BindingType
from fimd.launch.bindings import stored


def shown(source: str, home: Path, *, trusted: bool) -> tuple[bool, list[str]]:
    warnings: list[str] = []
    binding = Binding(BindingType.RW, source, "/inside")
    variables = {"HOME": str(home), "PWD": "/"}
    return bool(list(stored([binding], variables, warnings, trusted=trusted))), warnings


@pytest.mark.parametrize(
    "source", ["$HOME", "~/", "/", "$HOME/..", "$HOME/.ssh", "~/.gnupg/private-keys-v1.d", "~/link"]
)
def test_keys_in_the_home_are_shown_to_nobody_who_was_not_trusted(
    tmp_path: Path, source: str
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / "link").symlink_to(".ssh")
    done, [warning] = shown(source, tmp_path, trusted=False)
    assert not done
    assert "--all-bindings" in warning
    assert shown(source, tmp_path, trusted=True) == (True, [])


@pytest.mark.parametrize("source", ["$HOME/Documents", "/mnt", "/tmp/x", "$HOME/.sshx"])
def test_what_holds_none_is_shown_as_the_image_asks(tmp_path: Path, source: str) -> None:
    assert shown(source, tmp_path, trusted=False) == (True, [])
