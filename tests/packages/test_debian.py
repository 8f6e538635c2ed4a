"""What apt and dpkg install in an image is what they install in a chroot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages import bookworm
from tests.support.account import Account
from tests.support.image_commands import Commands
from tests.support.overlays import INSTALLED
from tests.support.session import Session
from tests.support.subordinate_ids import wrapped

VARIABLES = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "FIM_COMPRESSION_LEVEL": "1",
}
SECONDS = 1500
OWNERS = (
    "stat -c '%n %a %U:%G' /usr/bin/crontab /var/spool/cron/crontabs /var/cache/man "
    "/usr/bin/ssh-agent"
)
OWNED = """\
/usr/bin/crontab 2755 root:crontab
/var/spool/cron/crontabs 1730 root:crontab
/var/cache/man 755 man:man
/usr/bin/ssh-agent 2755 root:_ssh
"""
CHECKS = {
    "gcc": "cd /root && echo 'int main(){return 7;}' >a.c && gcc a.c && { ./a.out; echo $?; }",
    "node": "node -p 6+1",
    "venv": "python3 -m venv /root/venv && echo 7",
    "sshd": "mkdir -p /run/sshd && sshd -t && echo 7",
    "psql": "cd / && pg_ctlcluster 15 main start && su postgres -c 'psql -Atc \"select 7\"'; "
    "pg_ctlcluster 15 main stop",
}
"""Programs that print a 7."""


@pytest.fixture
def make(
    new_session: Callable[..., Session], account: Account, tmp_path: Path
) -> Callable[..., Commands]:
    def session(*, ids: bool) -> Commands:
        if account.uid == 0 and not ids:
            pytest.skip("root of the machine has all ids")
        image = bookworm.image()
        wrap = wrapped(account, tmp_path) if ids and account.uid else []
        started = new_session(wrap=wrap)
        return Commands(started, started.adopt(image, "app.flatimage"), VARIABLES)

    return session


def root(app: Commands, *words: str) -> str:
    """Do a command as root inside that succeeds, whatever it says on stderr; its stdout."""
    done = app.session.run(app.image, "fim-root", *words, variables=app.variables, seconds=SECONDS)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def check_sound(app: Commands) -> None:
    assert root(app, "dpkg", "--audit") == ""
    assert root(app, "dpkg", "-V") == ""


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "alone"])
def test_packages_with_groups_owners_and_special_bits_are_installed(
    make: Callable[..., Commands], ids: bool
) -> None:
    app = make(ids=ids)
    root(app, *bookworm.INSTALL, *bookworm.THREE)
    check_sound(app)
    assert root(app, "getent", "group", "crontab", "_ssh").count("\n") == 2
    if not ids:
        assert root(app, "stat", "-c", "%a %u:%g", "/usr/bin/crontab") == "2755 0:0\n"
        return
    assert root(app, "sh", "-c", OWNERS) == OWNED
    app.session.output(app.image, "fim-layer", "commit", "layer", variables=VARIABLES)
    assert root(app, "sh", "-c", OWNERS) == OWNED
    check_sound(app)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("overlay", INSTALLED)
def test_an_installation_is_that_of_a_chroot_and_stays_it(
    make: Callable[..., Commands], overlay: str
) -> None:
    app = make(ids=True)
    app.session.output(app.image, "fim-overlay", "set", overlay)
    root(app, "apt-get", "update")
    root(app, *bookworm.INSTALL, *bookworm.MANY)
    check_sound(app)
    assert difference(root(app, "sh", "-c", bookworm.LIST), bookworm.listing()) == set()
    run_all(app)
    before = root(app, "sh", "-c", bookworm.LIST)
    app.session.output(
        app.image, "fim-layer", "commit", "layer", variables=VARIABLES, seconds=SECONDS
    )
    assert difference(root(app, "sh", "-c", bookworm.LIST), before) == set()
    check_sound(app)
    run_all(app)
    root(app, "apt-get", "remove", "--purge", "--yes", *bookworm.MANY[::2])
    check_sound(app)


def difference(one: str, other: str) -> set[str]:
    """Return the lines that are in one of two texts alone."""
    return set(one.splitlines()) ^ set(other.splitlines())


def run_all(app: Commands) -> None:
    for name, script in CHECKS.items():
        assert "7" in root(app, "sh", "-c", script).split(), name
