"""A directory that was removed and made anew shows nothing of the old one, under any overlay."""

from pathlib import Path

import pytest

from tests.support.session import Session

SCRIPT = """
mkdir -p /w/a; echo old > /w/a/file; mkfifo /w/a/fifo
"""
ANEW = """
cd /w; rm -r a; mkdir a; echo new > a/fresh; ls a
for name in file fifo; do [ -e a/$name ] && echo "$name is there again"; done
rm -r a && mkdir a && ls a && rmdir a
"""


@pytest.mark.parametrize("overlay", ["bwrap", "overlayfs", "unionfs"])
def test_a_directory_made_anew_is_empty(session: Session, image: Path, overlay: str) -> None:
    session.output(image, "fim-root", "sh", "-ec", SCRIPT)
    session.output(image, "fim-layer", "commit", "binary")
    variables = {"FIM_OVERLAY": overlay}
    shown = session.output(image, "fim-root", "sh", "-c", ANEW, variables=variables)
    assert shown == "fresh\n"
