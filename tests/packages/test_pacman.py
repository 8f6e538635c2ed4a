"""A package of pacman's, with owners, a set-user-ID bit and an install script."""

import io
import tarfile
from pathlib import Path

import pytest

from tests.packages import bookworm
from tests.packages.systems import Make, root

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
FILES = {
    ".PKGINFO": (0o644, INFO),
    ".INSTALL": (0o644, SCRIPT),
    "usr/bin/thing": (0o4755, "#!/bin/sh\necho 7\n"),
    "etc/thing.conf": (0o640, "x\n"),
    "var/lib/thing/state": (0o600, "x\n"),
}


def package(directory: Path) -> Path:
    """Make the package, in a file that the session's user can read."""
    path = directory / "thing-1-1-any.pkg.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        for name, (mode, text) in FILES.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
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
    look = "stat -c '%n %a %U:%G' /usr/bin/thing /etc/thing.conf /var/lib/thing; thing"
    expected = (
        "/usr/bin/thing 4755 root:root\n/etc/thing.conf 640 root:root\n"
        "/var/lib/thing 2770 thing:thing\n7\n"
    )
    assert root(app, "sh", "-c", look) == expected
    app.session.output(
        app.image, "fim-layer", "commit", "layer", variables=app.variables, seconds=600
    )
    assert root(app, "sh", "-c", look) == expected
    root(app, "pacman", "--noconfirm", "-R", "thing")
    assert app.session.run(app.image, "fim-root", "test", "-e", "/usr/bin/thing").returncode == 1
