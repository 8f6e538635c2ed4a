"""What is tried in a data directory, to see what its file system keeps, changes nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from fimd.base.abilities import missing


def test_a_link_in_the_place_of_a_trial_gets_no_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, data = tmp_path / "canary", tmp_path / "data"
    canary.touch(0o600)
    data.mkdir()
    open_ = os.open

    def exchanged(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = open_(path, *arguments, **options)
        if str(path).startswith(".fimd-trial-"):
            (data / path).rename(tmp_path / path)
            (data / path).symlink_to(canary)
        return descriptor

    monkeypatch.setattr(os, "open", exchanged)
    directory = open_(data, os.O_RDONLY)
    try:
        assert missing(directory) == []
    finally:
        os.close(directory)
    assert canary.stat().st_mode & 0o777 == 0o600
    assert list(data.iterdir()) == []
