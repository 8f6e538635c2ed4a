"""Who comes into an instance from outside gives its programs no way out."""

from pathlib import Path

import pytest

from tests.support.session import Session

_LOOK = """
while :; do
  for process in /proc/[0-9]*; do
    exe=$(readlink $process/exe 2>/dev/null) || continue
    case $exe in */python3*|*/fimd/launch/entry) echo "$exe";; esac
  done
done
"""


@pytest.mark.parametrize("command", ["fim-exec", "fim-root"])
def test_the_files_that_it_executes_are_not_to_be_opened_inside(
    session: Session, image: Path, command: str
) -> None:
    session.background(image, f"({_LOOK}) > /tmp_seen", command=command)
    for _ in range(3):
        assert session.output(image, "fim-instance", "exec", "0", "sleep", "1") == ""
    seen = session.output(image, "fim-instance", "exec", "0", "cat", "/tmp_seen")
    assert set(seen.split()) == set()
