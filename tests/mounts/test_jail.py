"""A jail: nothing but its directory is there, whoever the process was."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fimd.base.errors import UnsupportedError
from fimd.mounts.jail import imprison
from tests.support.account import PROJECT
from tests.support.children import in_child

PLAIN = pytest.mark.parametrize("as_plain", [False, True], ids=["own account", "plain user"])


@pytest.fixture
def directory(tmp_path: Path) -> int:
    """A directory that a plain user may change, beside a file that lies outside."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "jail").mkdir()
    (tmp_path / "jail").chmod(0o777)
    (tmp_path / "jail" / "up").symlink_to("../secret")
    (tmp_path / "jail" / "absolute").symlink_to(tmp_path / "secret")
    return os.open(tmp_path / "jail", os.O_RDONLY | os.O_DIRECTORY)


def jailed(directory: int, function: Callable[[], object], *, as_plain: bool) -> int:
    def run() -> None:
        imprison(directory, seconds=10)
        function()

    return in_child(run, as_plain=as_plain)


@PLAIN
def test_no_path_and_no_link_leads_out(directory: int, tmp_path: Path, as_plain: bool) -> None:
    def look() -> None:
        assert set(os.listdir("/")) == {"up", "absolute"}
        assert set(os.listdir("/../..")) == {"up", "absolute"}
        for path in ("up", "absolute", "/../secret", str(tmp_path / "secret"), "/proc/self"):
            with pytest.raises(FileNotFoundError):
                os.stat(path)

    assert jailed(directory, look, as_plain=as_plain) == 0


@PLAIN
def test_what_is_made_belongs_to_the_user_outside(
    directory: int, tmp_path: Path, as_plain: bool
) -> None:
    def make() -> None:
        Path("/made").write_text("content")
        os.mknod("/deleted", 0o020000, 0)

    assert jailed(directory, make, as_plain=as_plain) == 0
    owner = (tmp_path / "jail" / "made").stat().st_uid
    assert owner == (5 if as_plain and os.getuid() == 0 else os.getuid())


@PLAIN
def test_modes_keep_their_owner_from_nothing(
    directory: int, tmp_path: Path, as_plain: bool
) -> None:
    def make() -> None:
        os.mkdir("/closed", 0)
        descriptor = os.open("/closed/file", os.O_WRONLY | os.O_CREAT, 0)
        os.write(descriptor, b"content")
        os.close(descriptor)
        assert Path("/closed/file").read_text() == "content"

    assert jailed(directory, make, as_plain=as_plain) == 0


@PLAIN
def test_neither_another_root_nor_a_mount_nor_more_privileges_are_to_be_had(
    directory: int, as_plain: bool
) -> None:
    def try_it() -> None:
        with pytest.raises(PermissionError):
            os.chroot("/")
        with pytest.raises(OSError, match=r"not permitted|Invalid"):
            os.setuid(1)

    assert jailed(directory, try_it, as_plain=as_plain) == 0


def test_time_and_memory_have_their_limits(directory: int) -> None:
    def take_too_long() -> None:
        imprison(directory, seconds=0.1)
        while True:
            pass

    def take_too_much() -> None:
        imprison(directory, memory=100 << 20)
        with pytest.raises(MemoryError):
            bytearray(200 << 20)

    assert in_child(take_too_long) == -signal.SIGALRM
    assert in_child(take_too_much) == 0


def test_where_no_user_namespace_is_allowed_it_says_so(directory: int) -> None:
    code = (
        "from fimd.base.errors import UnsupportedError\n"
        "from fimd.mounts.jail import imprison\n"
        f"try: imprison({directory})\n"
        "except UnsupportedError as error: assert 'fimctl doctor' in str(error)\n"
        "else: raise SystemExit(3)\n"
    )
    refuse = str(PROJECT / "tests" / "support" / "refusing.py")
    command = [sys.executable, refuse, sys.executable, "-c", code]

    def refused() -> None:
        os.set_inheritable(directory, True)
        os.chdir(PROJECT)
        os.execv(sys.executable, command)

    if os.getuid() == 0:
        pytest.skip("root of the machine needs none")
    assert in_child(refused) == 0
    assert issubclass(UnsupportedError, Exception)
