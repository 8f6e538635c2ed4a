"""A Debian as debootstrap makes it, kept from one run to the next, and what goes into it."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

PLACE: Final = Path("/var/tmp/fimd-packages")
THREE: Final = ("cron", "man-db", "openssh-client")
MANY: Final = (
    *("cron", "man-db", "openssh-server", "postgresql", "nginx-light", "gcc", "libc6-dev", "git"),
    *("nodejs", "python3-venv", "locales", "tzdata", "ca-certificates", "fonts-dejavu-core"),
)
_NO_CACHE: Final = ("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
"""Sixty megabytes that a commit would have to pack."""
INSTALL: Final = ("apt-get", *_NO_CACHE, "install", "--yes", "--no-install-recommends")
LIST: Final = (
    "find /bin/ /etc /lib/ /sbin/ /usr /var /opt /srv -xdev -path /var/cache -prune "
    "-o -path /var/log -prune -o -path /var/lib/apt -prune -o -path /var/lib/postgresql/15 -prune "
    "-o -printf '%p %y %m %U:%G %l\\n' | sort"
)
"""What there is in a system, without what differs from one installation to the next."""
_MIRROR: Final = "http://deb.debian.org/debian/"
_ENVIRONMENT: Final = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
_SECONDS: Final = 900
_FRESH: Final = 12 * 3600


def image() -> Path:
    """Return an image of it, with the files of THREE downloaded; it is made at the first need."""
    if os.getuid() != 0:
        pytest.skip("only root makes a Debian of its own")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    with _locked():
        made = PLACE / "bookworm.flatimage"
        if not made.exists():
            _make_tree()
            part = PLACE / "part.flatimage"
            command = [sys.executable, "-P", "-m", "fimctl", "image", "create", "-l", "1"]
            subprocess.run([*command, PLACE / "tree", part], check=True, timeout=_SECONDS)
            part.rename(made)
        return made


def listing() -> str:
    """Return what there is once today's MANY are installed in a chroot; made at the first need."""
    image()
    with _locked():
        made = PLACE / "listing"
        if not made.exists() or time.time() - made.stat().st_mtime > _FRESH:
            install = f"apt-get update >&2 && {' '.join((*INSTALL, *MANY))} >&2 && {LIST}"
            made.write_text(_in_chroot(install))
        return made.read_text()


def in_chroot(script: str) -> str:
    """Return what a shell prints in a fresh copy of it, as root of the machine."""
    image()
    with _locked():
        return _in_chroot(script)


def _in_chroot(script: str) -> str:
    tree = PLACE / "chroot"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", PLACE / "tree", tree], check=True, timeout=_SECONDS)
    enter = 'mount --bind "$0" "$0"; cd "$0"; mount -t proc proc proc; chroot . sh -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", enter, str(tree), script],
        env=_ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_SECONDS,
    )
    return done.stdout


def _make_tree() -> None:
    tree = PLACE / "tree"
    if (PLACE / "tree.made").exists():
        return
    shutil.rmtree(tree, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", "bookworm", str(tree), *_mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        pytest.skip(f"no Debian can be fetched: {(done.stdout + done.stderr)[-300:]}")
    shutil.copy("/etc/resolv.conf", tree / "etc" / "resolv.conf")
    network = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    lines = [line for line in network.stdout.splitlines() if line.startswith("Acquire::Check-")]
    (tree / "etc/apt/apt.conf.d/90network").write_text("\n".join([*lines, ""]))
    for words in (["apt-get", "update"], [*INSTALL, "--download-only", *THREE]):
        subprocess.run(
            ["chroot", tree, *words],
            env=_ENVIRONMENT,
            check=True,
            timeout=_SECONDS,
            capture_output=True,
        )
    (PLACE / "tree.made").touch()


def _mirror() -> list[str]:
    """The mirror that this machine's apt installs from, where it does from one."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian"]
    said = subprocess.run(
        [*words, "Created-By: Packages"], capture_output=True, text=True, check=False
    )
    return said.stdout.splitlines()[:1]


def upgrade() -> str:
    """A shell's words that bring a system up to what Debian has published since its release."""
    [mirror] = _mirror() or [_MIRROR]
    sources = (
        f"deb {mirror} bookworm-updates main",
        f"deb {mirror.rstrip('/')}-security bookworm-security main",
    )
    lines = " ".join(f"'{source}'" for source in sources)
    apt = " ".join(("apt-get", *_NO_CACHE, "--yes"))
    return (
        f"printf '%s\\n' {lines} >/etc/apt/sources.list.d/updates.list && "
        f"apt-get update >&2 && {apt} upgrade >&2"
    )


@contextmanager
def _locked() -> Iterator[None]:
    """Have the place to oneself: another process may be making what is in it."""
    PLACE.mkdir(mode=0o755, exist_ok=True)
    if PLACE.is_symlink() or PLACE.stat().st_uid != os.getuid():
        pytest.skip(f"{PLACE} is another user's")
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
