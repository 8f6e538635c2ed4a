"""A package of rpm's, which rpmbuild makes inside: owners, special bits, scripts of its own."""

import pytest

from tests.packages import bookworm
from tests.packages.systems import Make, check_stays, root

SPEC = r"""
Name: thing
Version: 1
Release: 1
Summary: something
License: none
BuildArch: noarch
%description
something
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/var/lib/thing
printf '#!/bin/sh\necho 7\n' >%{buildroot}/usr/bin/thing
echo x >%{buildroot}/etc/thing.conf
echo x >%{buildroot}/var/lib/thing/state
ln %{buildroot}/var/lib/thing/state %{buildroot}/var/lib/thing/same
%pre
groupadd -r thing && useradd -r -g thing thing
%postun
userdel thing
%files
%attr(4755, root, root) /usr/bin/thing
%attr(640, root, www-data) %config /etc/thing.conf
%attr(2770, thing, thing) %dir /var/lib/thing
%attr(600, thing, www-data) /var/lib/thing/*
"""
LOOK = (
    "stat -c '%n %a %U:%G' /usr/bin/thing /etc/thing.conf /var/lib/thing /var/lib/thing/*; "
    "stat -c %h /var/lib/thing/same; thing; rpm -V --nodeps thing"
)
LOOKS = """\
/usr/bin/thing 4755 root:root
/etc/thing.conf 640 root:www-data
/var/lib/thing 2770 thing:thing
/var/lib/thing/same 600 thing:www-data
/var/lib/thing/state 600 thing:www-data
2
7
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rpm_builds_installs_and_removes_a_package(make: Make) -> None:
    app = make(ids=True)
    root(app, "apt-get", "update")
    root(app, *bookworm.INSTALL, "rpm")
    spec = app.session.directory / "work" / "thing.spec"
    spec.write_text(SPEC)
    spec.chmod(0o644)
    root(app, "rpmbuild", "-bb", "--define", "_topdir /root/build", str(spec))
    made = "/root/build/RPMS/noarch/thing-1-1.noarch.rpm"
    root(app, "rpm", "--force-debian", "--nodeps", "-i", made)
    check_stays(app, LOOK, LOOKS)
    root(app, "rpm", "--force-debian", "-e", "thing")
    left = "! test -e /usr/bin/thing && ! getent passwd thing && ! rpm -q thing"
    root(app, "sh", "-c", left)
