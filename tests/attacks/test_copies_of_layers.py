"""What a view copies up from a layer changes nothing outside of the upper."""

import os
import stat
from pathlib import Path

import pytest

from fimd.casefold import copy_up


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_exchanged_for_a_link_while_it_is_made_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    union, upper, canary = (tmp_path / name for name in ("union", "upper", "canary"))
    for directory in (union, upper, canary):
        directory.mkdir(mode=0o700)
    (union / "name").mkdir() if kind == "directory" else os.mkfifo(union / "name")
    (union / "name").chmod(0o777)

    def exchanged(name: str) -> None:
        made = getattr(os, name)

        def make(*arguments: object, **options: object) -> None:
            made(*arguments, **options)
            (upper / "name").rename(upper / "aside")
            (upper / "name").symlink_to(canary)

        monkeypatch.setattr(os, name, make)

    exchanged("mkdir")
    exchanged("mknod")
    before = canary.stat()
    opened = [os.open(path, os.O_PATH) for path in (union, upper)]
    try:
        status = (union / "name").lstat()
        with pytest.raises(OSError):
            copy_up._make(opened[0], b"name", opened[1], status)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    after = canary.stat()
    assert stat.S_IMODE(after.st_mode) == 0o700
    assert after.st_ctime_ns == before.st_ctime_ns
