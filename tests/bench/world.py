"""Where whole commands are measured: a session of a plain user, images of layers, and the script.

The script stands for FlatImage without its own overhead. Its layers are mounted by `dwarfs` where
that is installed and by squashfuse otherwise, a C program as small as a mounter of layers can be.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import make_rootfs
from tests.support.account import own, plain
from tests.support.session import Session

SCRIPT = Path(__file__).with_name("one_by_one.sh")
BARE = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "true"]


_MOUNTERS = ("dwarfs ", "squashfuse ")
_MOUNT_MAX = 1000
"""Of fusermount3, unless /etc/fuse.conf says otherwise."""


class MissingError(Exception):
    """What something is to be compared with is not installed."""


def fimctl(*words: str | os.PathLike[str]) -> None:
    """Run the client, outside of any session."""
    subprocess.run([sys.executable, "-P", "-m", "fimctl", *words], check=True, capture_output=True)


@contextmanager
def new_session(*, is_own: bool = False, **settings: str) -> Iterator[Session]:
    """Start a session, with settings of the daemon.

    It is a plain user's, where there is one to become, unless it is to be one's own.
    """
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "site").mkdir()
        account = own() if is_own else plain(directory / "site") or own()
        (directory / "session").mkdir()
        os.chown(directory / "session", account.uid, account.gid)
        with Session(directory / "session", account, settings) as session:
            session.output("fimctl", "status")  # starts the daemon
            yield session
            # a mount namespace that somebody else made meanwhile keeps the script's mounts alive
            for pid, words in session.processes().items():
                if words.startswith(_MOUNTERS):
                    os.kill(pid, signal.SIGTERM)


def make_trees(directory: Path, count: int) -> list[Path]:
    """Make the trees of a base layer, busybox, and of `count` - 1 small ones."""
    trees = [make_rootfs(directory / "rootfs", Path("/bin/busybox"))]
    for number in range(1, count):
        tree = directory / f"tree{number}"
        (tree / "opt").mkdir(parents=True)
        (tree / "opt" / str(number)).write_text(f"{number}\n" * 1000)
        trees.append(tree)
    return trees


def make_layers(trees: list[Path], directory: Path) -> list[Path]:
    """Pack trees as DwarFS."""
    from fimd.dwarfs.write import create

    layers = [directory / f"{number}.layer" for number in range(len(trees))]
    for tree, layer in zip(trees, layers, strict=True):
        create(tree, layer, level=1)
    return layers


def make_image(layers: list[Path], image: Path) -> Path:
    """Make an image of layers, the base first."""
    from fimd.flatimage.create import create_image

    create_image(image, layers)
    return image


def check_room(mounts: int, session: Session) -> None:
    """Raise MissingError where fusermount3 would refuse so many more mounts."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    there = sum(line.split()[2].startswith("fuse") for line in lines)
    if session.account.uid and there + mounts > _MOUNT_MAX:
        raise MissingError(f"{mounts} more FUSE mounts are too many: {there} are there already")


def resident(pid: int) -> float:
    """Return a process's resident memory, with its part of what it shares (PSS), in MiB.

    It is 0 for a process that has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@dataclass(frozen=True)
class Script:
    """The shell script, with what it mounts the layers by."""

    session: Session
    mounter: str
    layers: list[Path]

    def command(self, *words: str, directory: str = "script") -> list[str]:
        """Return the command that runs a program over the layers, mounted for it alone."""
        layers = " ".join(map(str, self.layers))
        place = str(self.session.directory / "work" / directory)
        return [str(SCRIPT), place, self.mounter, layers, *words]


def make_script(session: Session, trees: list[Path], layers: list[Path], scratch: Path) -> Script:
    """Prepare the script for the same layers. Raises MissingError without a mounter."""
    if shutil.which("dwarfs"):
        return Script(session, "dwarfs", layers)
    if not (shutil.which("squashfuse") and shutil.which("mksquashfs")):
        raise MissingError("neither dwarfs nor squashfuse and squashfs-tools are installed")
    packed = [scratch / f"{tree.name}.squashfs" for tree in trees]
    for tree, file in zip(trees, packed, strict=True):
        command = ["mksquashfs", str(tree), str(file), "-comp", "lz4", "-no-progress", "-quiet"]
        subprocess.run(command, check=True, capture_output=True)
    return Script(session, "squashfuse", packed)
