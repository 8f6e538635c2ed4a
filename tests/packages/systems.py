"""Systems of their own to install packages into: images in sessions."""

from collections.abc import Callable

from tests.support.image_commands import Commands

Make = Callable[..., Commands]
"""Makes one; `ids` says whether its user has subordinate ids, from `first` on.

`image` is another's, where it is not the one of a Debian.
"""
VARIABLES = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "FIM_COMPRESSION_LEVEL": "1",
}
SECONDS = 1500


def root(app: Commands, *words: str) -> str:
    """Do a command as root inside that succeeds, whatever it says on stderr; its stdout."""
    done = app.session.run(app.image, "fim-root", *words, variables=app.variables, seconds=SECONDS)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def check_stays(app: Commands, script: str, expected: str) -> None:
    """Check what a shell prints as root inside, before and after a commit."""
    before = root(app, "sh", "-c", script)
    assert before == expected, before
    app.output("fim-layer", "commit", "layer", seconds=SECONDS)
    after = root(app, "sh", "-c", script)
    assert after == expected, after
