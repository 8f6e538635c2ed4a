"""The Debian package, installed in a clean Debian 12 where a fresh user runs an image."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).resolve().parents[2]

ENTER = """\
set -e
mount --make-rprivate /
mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmp tmp; mkdir -p -m 700 tmp/run; chown 1000:1000 tmp/run
mkdir -p mnt/old; pivot_root . mnt/old; cd /; umount -l /mnt/old
exec setpriv --reuid 1000 --regid 1000 --clear-groups env -i HOME=/home/visitor USER=visitor \\
  PATH=/usr/bin:/bin XDG_RUNTIME_DIR=/tmp/run LANG=C.UTF-8 dbus-run-session -- sh -ec "$2"
"""

VISIT = """\
cd
mkdir -p root/bin root/etc root/tmp root/root root/dev root/proc root/sys root/home
cp /bin/busybox root/bin
for name in sh cat echo; do ln -s busybox root/bin/$name; done
fimctl image create -l 1 root app.flatimage
./app.flatimage fim-root sh -c 'echo kept > /Kept'
./app.flatimage fim-layer commit binary
for overlay in bwrap overlayfs unionfs; do
  ./app.flatimage fim-overlay set $overlay
  ./app.flatimage fim-exec cat /Kept
done
./app.flatimage fim-casefold on
./app.flatimage fim-exec cat /KEPT
fimctl setup
fimctl boot set app.flatimage cat /Kept
fimctl desktop install app.flatimage
identifier=$(basename ~/.local/share/applications/*.App.i*.desktop .desktop | sed s/.*App.i//)
ask() {
  dbus-send --session --print-reply --dest=org.flatimage.Fim1 \\
    /org/flatimage/Fim1/SearchProvider org.gnome.Shell.SearchProvider2."$@"
}
ask ActivateResult string:$identifier array:string:app uint32:0
ask GetResultMetas array:string:$identifier
desktop-file-validate /usr/share/applications/org.flatimage.Fim1.desktop \\
  ~/.local/share/applications/*.desktop
fimctl doctor
man -w fimd fimctl flatimage org.flatimage.Fim1
"""


@pytest.fixture(scope="module")
def debian() -> Iterator[Path]:
    """A minimal Debian 12, with the package."""
    if os.getuid() != 0:
        pytest.skip("only root can install packages")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    directory = Path(tempfile.mkdtemp(prefix="fimd-deb-"))
    directory.chmod(0o755)
    root = directory / "root"
    try:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", root],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"no Debian could be fetched: {made.stdout[-300:]}")
        for place in ("apt.conf.d", "sources.list.d"):  # this machine's way to a mirror
            shutil.copytree(f"/etc/apt/{place}", root / "etc/apt" / place, dirs_exist_ok=True)
        subprocess.run([PROJECT / "packaging/deb", root / "srv"], check=True, capture_output=True)
        [package] = (root / "srv").glob("*.deb")
        install = "apt-get -qy --no-install-recommends install"
        extras = "dbus fuse-overlayfs unionfs-fuse busybox-static man-db "
        extras += "shared-mime-info desktop-file-utils"
        command = f"apt-get -q update && {install} /srv/{package.name} {extras}"
        done = subprocess.run(
            ["chroot", root, "sh", "-c", f"{command} && useradd -m -u 1000 visitor"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield root
    finally:
        shutil.rmtree(directory)


def test_a_fresh_user_runs_an_image(debian: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", ENTER, "sh", debian, VISIT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines().count("kept") == 4
    assert "installed for all users already" in done.stdout
    assert "used 6 times, /home/visitor/app.flatimage" in done.stdout
    assert "application/flatimage" in (debian / "usr/share/mime/globs").read_text()
    for place in ("applications", "gnome-shell/search-providers", "krunner/dbusplugins"):
        assert list((debian / "usr/share" / place).glob("org.flatimage.Fim1.*")), place
    assert ", 0 problems" in done.stdout
    assert "Traceback" not in done.stderr


def test_it_leaves_when_it_is_removed(debian: Path) -> None:
    remove: list[str | Path] = ["chroot", debian, "apt-get", "-qy", "remove", "fimd"]
    subprocess.run(remove, check=True, capture_output=True)
    left = [path for path in debian.glob("usr/**/*") if path.name.startswith(("fimd", "fimctl"))]
    assert left == []
