"""A package of pacman's, with owners, a set-user-ID bit and an install script."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packages import bookworm
from tests.packages.systems import Make, check_stays, root

INFO = """\
pkgname = thing
pkgbase = thing
pkgver = 1-1
pkgdesc = something
url = none
builddate = 1700000000
packager = nobody
size = 100
arch = any
"""
SCRIPT = """\
post_install() {
  groupadd -r thing && useradd -r -g thing thing
  chown thing:thing /var/lib/thing && chmod 2770 /var/lib/thing
}
"""


@dataclass(frozen=True)
class File:
    """A file of the package."""

    mode: int
    text: str
    group: int = 0


FILES = {
    ".PKGINFO": File(0o644, INFO),
    ".INSTALL": File(0o644, SCRIPT),
    "usr/bin/thing": File(0o4755, "#!/bin/sh\necho 7\n"),
    "etc/thing.conf": File(0o640, "x\n", group=33),
    "var/lib/thing/state": File(0o600, "x\n"),
}
LOOK = "stat -c '%n %a %U:%G' /usr/bin/thing /etc/thing.conf /var/lib/thing; thing"
LOOKS = """\
/usr/bin/thing 4755 root:root
/etc/thing.conf 640 root:www-data
/var/lib/thing 2770 thing:thing
7
"""


def package(directory: Path) -> Path:
    """Make the package, in a file that the session's user can read."""
    path = directory / "thing-1-1-any.pkg.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        for name, file in FILES.items():
            member = tarfile.TarInfo(name)
            member.mode, member.gid, member.size = file.mode, file.group, len(file.text)
            archive.addfile(member, io.BytesIO(file.text.encode()))
    path.chmod(0o644)
    return path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pacman_installs_and_removes_a_package(make: Make) -> None:
    app = make(ids=True)
    root(app, "apt-get", "update")
    root(app, *bookworm.INSTALL, "pacman-package-manager", "xz-utils")
    root(app, "ln", "-s", "/proc/self/mounts", "/etc/mtab")  # of which pacman learns the space
    made = package(app.session.directory / "work")
    root(app, "pacman", "--noconfirm", "-U", str(made))
    check_stays(app, LOOK, LOOKS)
    root(app, "pacman", "--noconfirm", "-R", "thing")
    assert app.session.run(app.image, "fim-root", "test", "-e", "/usr/bin/thing").returncode == 1
