"""What tests share: accounts, sessions, and small images."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fimd.base.removal import remove_tree
from tests.support.account import Account, own, plain
from tests.support.session import Session

# A shell's background job ignores what is typed to interrupt it, and so would every program that a
# test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

SHARED_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "images"


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a failure show names that are not UTF-8, which one process can't send to another."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_sendable, value))
    return value


@pytest.fixture(scope="session")
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter, with a short name for sockets."""
    path = Path(tempfile.mkdtemp(prefix="fimd-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        # as a plain user too, where the kernel's overlay has left a directory of mode 0
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        remove_tree(parent, path.name)
        os.close(parent)


@pytest.fixture(scope="session")
def plain_account(open_directory: Path) -> Account:
    """A user with no privileges."""
    scratch = open_directory / "site"
    scratch.mkdir()
    account = plain(scratch)
    if account is None:
        pytest.skip("there is no plain user to become")
    return account


@pytest.fixture(scope="session", params=["user", "root"])
def account(request: pytest.FixtureRequest, plain_account: Account) -> Account:
    """A plain user, and root where the tests may be root."""
    if request.param == "user":
        return plain_account
    if os.getuid() != 0:
        pytest.skip("the tests do not run as root")
    return own()


@pytest.fixture
def new_session(open_directory: Path, account: Account) -> Iterator[Callable[..., Session]]:
    """Start sessions, as many as a test wants, with settings of the daemon."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")
    with ExitStack() as stack:

        def new(*, wrap: Sequence[str] = (), has_bus: bool = True, **settings: str) -> Session:
            directory = Path(tempfile.mkdtemp(dir=open_directory))
            directory.chmod(0o755)
            os.chown(directory, account.uid, account.gid)
            return stack.enter_context(Session(directory, account, settings, wrap, has_bus))

        yield new


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    """One session; at its end no process and no mount of it may be left."""
    return new_session()


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A static busybox, to make root filesystems of."""
    for candidate in ("/bin/busybox", "/usr/bin/busybox"):
        if Path(candidate).exists():
            kind = subprocess.run(["ldd", candidate], capture_output=True, text=True, check=False)
            if "not a dynamic" in kind.stderr + kind.stdout or "statically" in kind.stdout:
                return Path(candidate)
    pytest.skip("there is no static busybox")


APPLETS = (
    *(
        "sh",
        "chown",
        "ls",
        "cat",
        "stat",
        "touch",
        "id",
        "echo",
        "sleep",
        "mkdir",
        "rm",
        "mv",
        "cp",
        "ln",
    ),
    *("chmod", "find", "test", "env", "pwd", "true", "false", "kill", "head", "wc", "tr", "printf"),
    *("readlink", "rmdir", "mkfifo", "sha256sum", "dd", "ps", "mount", "seq", "grep", "whoami"),
)


def make_rootfs(directory: Path, busybox: Path) -> Path:
    """Make a small root filesystem."""
    for name in ("bin", "etc", "tmp", "root", "proc", "dev", "sys", "usr", "home"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin" / "busybox")
    for name in APPLETS:
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc" / "release").write_text("small\n")
    return directory


@pytest.fixture(scope="session")
def busybox_image(
    open_directory: Path, busybox: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An image of busybox, which no test may change."""
    root = make_rootfs(tmp_path_factory.mktemp("rootfs") / "root", busybox)
    image = open_directory / "busybox.flatimage"
    command = [
        sys.executable,
        "-P",
        "-m",
        "fimctl",
        "image",
        "create",
        "-l",
        "1",
        str(root),
        str(image),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return image


@pytest.fixture
def image(session: Session, busybox_image: Path) -> Path:
    """A copy of the image of busybox, the session's own."""
    return session.adopt(busybox_image, "app.flatimage")
