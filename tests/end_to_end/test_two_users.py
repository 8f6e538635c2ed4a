"""Two plain users who share nothing but /tmp, on a machine that no administrator has prepared."""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Account
from tests.support.session import Session, wait_for

OTHER = "news"  # as PLAIN_ACCOUNT: on every Debian, owns nothing, nobody logs in as it
PRIVATE = """\
set -e
mkdir -m 1777 "$1/tmp"; mkdir -p "$1/$2"
mount --make-rprivate /
mount --bind "$2" "$1/$2"; mount --rbind "$1/tmp" /tmp
echo up; exec sleep infinity
"""


class User(Session):
    """A user's session without FIM_DIR_GLOBAL, in a mount namespace whose /tmp is its own."""

    @property
    def environment(self) -> dict[str, str]:
        return {key: value for key, value in super().environment.items() if key != "FIM_DIR_GLOBAL"}

    @property
    def mark(self) -> str:
        return f"XDG_RUNTIME_DIR={self.directory}/run"

    @property
    def tree(self) -> Path:
        return self.directory / "run" / "fim" / "app" / f"u{self.account.uid}"

    def start(self, *argv: Any, **options: Any) -> "subprocess.Popen[bytes]":
        account = {"user": None, "group": None, "extra_groups": None}
        return super().start(*self.wrap, *argv, **account, **options)


@pytest.fixture
def users(open_directory: Path, plain_account: Account) -> Iterator[tuple[User, User]]:
    """Two users, in a namespace in which there is no /tmp/fim."""
    if os.getuid() != 0:
        pytest.skip("only root can be two users")
    try:
        entry = pwd.getpwnam(OTHER)
    except KeyError:
        pytest.skip(f"there is no user {OTHER}")
    names = (plain_account.python, plain_account.environment)
    other = Account(entry.pw_uid, entry.pw_gid, OTHER, *names)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=open_directory)))
        place.chmod(0o755)
        words = ["unshare", "--mount", "sh", "-c", PRIVATE, "sh", str(place), str(open_directory)]
        namespace = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
        stack.callback(namespace.kill)
        assert namespace.stdout is not None
        assert namespace.stdout.readline() == b"up\n"
        found = []
        for account in (plain_account, other):
            directory = place / account.name
            directory.mkdir()
            os.chown(directory, account.uid, account.gid)
            become = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
            enter = ["nsenter", f"--target={namespace.pid}", "--mount", "--wd=.", "setpriv"]
            found.append(stack.enter_context(User(directory, account, {}, [*enter, *become])))
        yield found[0], found[1]


def global_directory(user: User, image: Path) -> str:
    """Where an instance says that the runtime tree is."""
    script = (
        'echo "$FIM_DIR_GLOBAL"; test -d "$FIM_DIR_INSTANCE" && test -x "$FIM_DIR_APP_BIN/bash"'
    )
    return user.output(image, "fim-exec", "sh", "-c", script).strip()


def do_the_main_job(user: User, image: Path) -> None:
    """Run programs side by side, change files, commit, and look at what was kept."""
    programs = [user.background(image, f"echo {n} > /n{n}; sleep 60") for n in range(2)]
    assert {one["Pid"] for one in user.objects("ps")} == {one.pid for one in programs}
    assert user.output(image, "fim-exec", "cat", "/n0", "/n1") == "0\n1\n"
    for program in programs:
        program.kill()
        program.wait()
    wait_for(lambda: user.objects("ps") == [], what="the end of the instances")
    user.output(image, "fim-layer", "commit", "binary")
    assert user.output(image, "fim-root", "cat", "/n0", "/n1") == "0\n1\n"


@pytest.mark.parametrize("first", [0, 1])
def test_each_does_the_main_job_and_none_needs_an_administrator(
    users: tuple[User, User], busybox_image: Path, first: int
) -> None:
    owner, late = users[first], users[1 - first]
    images = {user.account.uid: user.adopt(busybox_image, "app.flatimage") for user in users}
    assert global_directory(owner, images[owner.account.uid]) == "/tmp/fim"
    own = global_directory(late, images[late.account.uid])
    assert own == str(late.directory / "run" / "fim")
    for user in (owner, late, owner):
        do_the_main_job(user, images[user.account.uid])
    spied = owner.run("ls", late.tree)
    assert spied.returncode != 0


def test_who_came_late_is_answered_by_every_command(
    users: tuple[User, User], busybox_image: Path
) -> None:
    owner, late = users
    owner.output(owner.adopt(busybox_image, "app.flatimage"), "fim-exec", "true")
    image = late.adopt(busybox_image, "app.flatimage")
    program = late.background(image, "sleep 60")
    late.output(image, "fim-env", "set", "PLACE=$FIM_DIR_GLOBAL")
    assert late.output(image, "fim-env", "list") == f"PLACE={late.directory}/run/fim\n"
    assert "instance started" in late.output("fimctl", "logs", image)
    told = "".join(late.run("fimctl", "doctor").stdout.split())  # it breaks lines
    assert f"okruntimetree{late.tree}" in told
    assert "0problems" in told
    # programs that the host gives are there, and nothing else of the tree
    shown = late.output(image, "fim-exec", "sh", "-c", 'ls "$FIM_DIR_APP"; command -v bash').split()
    assert shown == ["bin", "instance", "sbin", f"{late.tree}/bin/bash"]
    program.kill()
    program.wait()
