"""What can't work says so in one sentence, with exit code 125, and leaves nothing mounted."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fimd.flatimage.layout import find_layout
from fimd.flatimage.reserved import DESKTOP
from tests.support.account import Account
from tests.support.session import Session

NO_NEW_USER_NAMESPACES = Path(__file__).parent.parent / "support" / "refusing.py"


def refused(session: Session, *argv: str | os.PathLike[str], **options: str) -> str:
    """Run what has to fail, and return the sentence on stderr."""
    done = session.run(*argv, variables=options)
    assert done.returncode == 125, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    session.wait_until_clean()
    return done.stderr


@pytest.fixture
def plain_only(account: Account) -> None:
    if account.uid == 0:
        pytest.skip("root may do this")


def as_account(account: Account, script: str) -> Sequence[str]:
    """A command that runs `script` as root, and then another command as the account."""
    become = f"setpriv --reuid={account.uid} --regid={account.gid} --clear-groups"
    return ["sh", "-ec", f'{script} exec {become} -- "$@"', "sh"]


def test_a_file_that_is_no_image(session: Session) -> None:
    path = session.directory / "work" / "no.flatimage"
    path.write_bytes(b"something else\n" * 1000)
    assert f"{path} is no FlatImage" in refused(session, "fimctl", "run", path, "true")
    missing = path.with_name("missing")
    assert f"{missing} does not exist" in refused(session, "fimctl", "run", missing, "true")
    assert "not a regular file" in refused(session, "fimctl", "run", path.parent, "true")


def test_a_truncated_layer(session: Session, image: Path) -> None:
    os.truncate(image, image.stat().st_size - 1000)
    said = refused(session, image, "fim-exec", "true")
    assert str(image) in said
    assert "the file ends" in said


def test_an_unknown_overlay(session: Session, image: Path) -> None:
    said = refused(session, "fimctl", "run", "--overlay", "aufs", image, "true")
    assert "'aufs' is none of bwrap, overlayfs, unionfs" in said


def test_an_unknown_overlay_of_the_environment_is_told_and_left_out(
    session: Session, image: Path
) -> None:
    done = session.run(image, "fim-exec", "true", variables={"FIM_OVERLAY": "aufs"})
    assert done.returncode == 0
    assert "FIM_OVERLAY is left out: aufs is none of bwrap, overlayfs, unionfs" in done.stderr


def test_a_damaged_name_for_the_desktop_is_told_and_left_out(session: Session, image: Path) -> None:
    with image.open("r+b") as file:
        offset = find_layout(file.fileno()).reserved_offset + DESKTOP.offset
        file.seek(offset)
        file.write(b'{"name": "a\\u001b", "categories": [], "integrations": ["ENTRY"]}\0')
    done = session.run(image, "fim-exec", "echo", "runs")
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert "Application name cannot be empty or contain control characters" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_a_command_too(session: Session) -> None:
    assert session.output("fimctl", "help", "run") == session.output("fimctl", "run", "--help")
    assert session.output("fimctl", "help") == session.output("fimctl", "--help")


def test_what_is_no_number_of_seconds_is_said_to_be_none(session: Session, image: Path) -> None:
    done = session.run("fimctl", "run", "--wait", "abc", image, "true")
    assert done.returncode == 125
    assert "argument --wait: 'abc' is no number of seconds" in done.stderr


@pytest.mark.usefixtures("plain_only")
def test_what_who_makes_an_image_may_not_read_is_told_with_what_to_do(session: Session) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make something another user's")
    tree = session.directory / "tree"
    for number in range(8):
        (tree / f"closed{number}").mkdir(parents=True)
        (tree / f"closed{number}").chmod(0o700)
    done = session.run("fimctl", "image", "create", "-l", "1", tree, "new.flatimage")
    assert done.returncode == 0, done
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    assert lines[-1] == (
        "8 files and directories that this user may not read are not in the image: make it as root "
        "to have them"
    )


def test_a_data_directory_that_cannot_be_written(
    session: Session, image: Path, plain_only: None
) -> None:
    said = refused(session, image, "fim-exec", "true", FIM_DIR_DATA="/proc/data")
    assert "/proc/data can't be written" in said
    assert "FIM_DIR_DATA" in said


def test_a_daemon_that_cannot_be_started(session: Session, image: Path) -> None:
    (session.directory / "bin" / "fimd").write_text("#!/bin/sh\nexit 3\n")
    assert "could not start fimd" in refused(session, image, "true")


def test_a_wrong_setting(new_session: Callable[..., Session], busybox_image: Path) -> None:
    session = new_session(FIMD_ENGINE="warp")
    image = session.adopt(busybox_image, "app.flatimage")
    assert "can't be 'warp': it is one of auto, external, embedded" in refused(
        session, image, "true"
    )
    assert "'warp'" in refused(session, "fimctl", "status")  # and every call that follows


def test_a_runtime_tree_that_another_user_made(
    new_session: Callable[..., Session], account: Account, busybox_image: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make what belongs to another user")
    session = new_session()
    squatted = session.directory / "fim"
    squatted.mkdir(mode=0o777)
    os.chown(squatted, 12345, 12345)
    image = session.adopt(busybox_image, "app.flatimage")
    said = refused(session, image, "true")
    assert f"{squatted} belongs to user 12345" in said
    assert "set FIM_DIR_GLOBAL" in said


def test_a_fuse_device_that_is_none_is_as_good_as_missing(
    new_session: Callable[..., Session], account: Account, busybox_image: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can hide /dev/fuse")
    hide = as_account(account, "mount --bind /dev/null /dev/fuse;")
    session = new_session(wrap=["unshare", "--mount", "--", *hide])
    image = session.adopt(busybox_image, "app.flatimage")
    done = session.run(image, "fim-exec", "cat", "/etc/release")
    assert (done.returncode, done.stdout) == (0, "small\n")
    assert "/dev/fuse" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_user_namespaces(
    new_session: Callable[..., Session], account: Account, busybox_image: Path, plain_only: None
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can filter system calls and still start fusermount3")
    become = as_account(account, "")
    session = new_session(wrap=[sys.executable, str(NO_NEW_USER_NAMESPACES), *become])
    image = session.adopt(busybox_image, "app.flatimage")
    said = refused(session, image, "fim-exec", "true")
    assert "no sandbox can be made here" in said
    assert "user namespaces" in said
