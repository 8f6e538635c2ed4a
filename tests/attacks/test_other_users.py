"""What a program leaves for another user of the machine makes nobody the user that ran it."""

import os
import subprocess
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
