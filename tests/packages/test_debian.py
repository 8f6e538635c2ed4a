"""What apt and dpkg install in an image is what they install in a chroot."""

from dataclasses import replace

import pytest

from fimd.overlays import DEFAULT
from tests.packages import bookworm
from tests.packages.systems import SECONDS, VARIABLES, Make, root
from tests.support.image_commands import Commands
from tests.support.overlays import INSTALLED
from tests.support.subordinate_ids import FIRST

OWNERS = (
    "stat -c '%n %a %U:%G' /usr/bin/crontab /var/spool/cron/crontabs /var/cache/man "
    "/usr/bin/ssh-agent"
)
OWNED = """\
/usr/bin/crontab 2755 root:crontab
/var/spool/cron/crontabs 1730 root:crontab
/var/cache/man 755 man:man
/usr/bin/ssh-agent 2755 root:_ssh
"""
CHECKS = {
    "gcc": "cd /root && echo 'int main(){return 7;}' >a.c && gcc a.c && { ./a.out; echo $?; }",
    "node": "node -p 6+1",
    "venv": "python3 -m venv /root/venv && echo 7",
    "sshd": "mkdir -p /run/sshd && sshd -t && echo 7",
    "psql": "cd / && pg_ctlcluster 15 main start && su postgres -c 'psql -Atc \"select 7\"'; "
    "pg_ctlcluster 15 main stop",
}
"""Programs that print a 7."""


ADMINISTRATION = """
cd /root
groupadd -g 700 crew
useradd -u 701 -g crew -G audio,video -m -s /bin/sh one
useradd -r -M daemonish
usermod -aG crew -c 'some body' daemonish
echo one:secret | chpasswd
passwd -l daemonish >/dev/null
groupmod -n sailors crew
tail -n 3 /etc/passwd; tail -n 3 /etc/group; grep -c '^one:.y' /etc/shadow
stat -c '%n %a %U:%G' /etc/passwd /etc/shadow /etc/gshadow /home/one /home/one/.profile
su one -c 'id; touch /home/one/mine; echo no >/etc/passwd' 2>&1
runuser -u daemonish -- id
su -s /bin/sh nobody -c 'cat /etc/shadow' 2>&1
mkdir -p tree/deep; echo x >tree/deep/file; ln tree/deep/file tree/hard; ln -s nowhere tree/link
mkfifo tree/fifo; chown -R one:sailors tree; chown -h 33:34 tree/link
chmod 4750 tree/deep/file; chmod 2770 tree/deep; chmod 0 tree
sleep 1.5  # unionfs shows links' attributes later
tar cpf tree.tar tree; mkdir out; tar xpf tree.tar -C out; cp -a tree copy
for top in tree out/tree copy; do (cd $top; stat -c '%n %a %u:%g' . * deep/file); done
userdel -r one 2>/dev/null; getent passwd one; ls /home
chmod 700 tree out/tree copy; rm -r tree out copy; ls
"""
"""What people do as root, each with what can be seen of it."""

TOOLS = f"""
{" ".join(bookworm.INSTALL)} sudo rsync acl attr >/dev/null 2>&1
cd /root
useradd -m -s /bin/sh one
printf 'secret\\nsecret\\n' | passwd one 2>/dev/null; passwd -S one | cut -d' ' -f1,2
sudo -u one sh -c 'id; cd; touch mine; echo no >/etc/passwd' 2>&1
sudo -u nobody -g daemon id
stat -c '%n %a %U:%G' /home/one/mine /usr/bin/sudo /etc/sudoers
mkdir -p tree/deep; echo x >tree/deep/file; ln tree/deep/file tree/hard; ln -s nowhere tree/link
mkfifo tree/fifo; chown -R one:audio tree; chown -h 33:34 tree/link; touch -d @7 tree/deep
chmod 4750 tree/deep/file; chmod 2770 tree/deep
sleep 1.5  # unionfs shows links' attributes later
rsync -aHAX tree/ copy/
sleep 1.5
rsync -aHAXin tree/ copy/ | grep -v '/$'
cd copy; stat -c '%n %a %u:%g %F' * deep/file; stat -c %h hard deep/file; stat -c %Y deep
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("overlay", INSTALLED)
@pytest.mark.parametrize(
    "script", [TOOLS, f"{bookworm.upgrade()} && {bookworm.LIST}"], ids=["tools", "upgrade"]
)
def test_what_is_installed_for_it_and_what_is_upgraded_is_as_in_a_chroot(
    make: Make, overlay: str, script: str
) -> None:
    app = make(ids=True)
    app.session.output(app.image, "fim-overlay", "set", overlay)
    assert difference(root(app, "sh", "-c", script), bookworm.in_chroot(script)) == set()
    check_sound(app)


@pytest.mark.parametrize(
    "overlay",
    [pytest.param(name, marks=[] if name == DEFAULT else pytest.mark.slow) for name in INSTALLED],
)
def test_what_administers_a_system_does_what_it_does_in_a_chroot(make: Make, overlay: str) -> None:
    app = make(ids=True)
    app.session.output(app.image, "fim-overlay", "set", overlay)
    assert root(app, "sh", "-c", ADMINISTRATION) == bookworm.in_chroot(ADMINISTRATION)


def check_sound(app: Commands) -> None:
    assert root(app, "dpkg", "--audit") == ""
    assert root(app, "dpkg", "-V") == ""


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "alone"])
def test_packages_with_groups_owners_and_special_bits_are_installed(make: Make, ids: bool) -> None:
    app = make(ids=ids)
    root(app, *bookworm.INSTALL, *bookworm.THREE)
    check_sound(app)
    assert root(app, "getent", "group", "crontab", "_ssh").count("\n") == 2
    if not ids:
        assert root(app, "stat", "-c", "%a %u:%g", "/usr/bin/crontab") == "2755 0:0\n"
        return
    assert root(app, "sh", "-c", OWNERS) == OWNED
    app.session.output(app.image, "fim-layer", "commit", "layer", variables=VARIABLES)
    assert root(app, "sh", "-c", OWNERS) == OWNED
    check_sound(app)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("overlay", INSTALLED)
def test_an_installation_is_that_of_a_chroot_and_stays_it(make: Make, overlay: str) -> None:
    app = make(ids=True)
    app.session.output(app.image, "fim-overlay", "set", overlay)
    root(app, "apt-get", "update")
    root(app, *bookworm.INSTALL, *bookworm.MANY)
    check_sound(app)
    assert difference(root(app, "sh", "-c", bookworm.LIST), bookworm.listing()) == set()
    run_all(app)
    before = root(app, "sh", "-c", bookworm.LIST)
    check_commits(app, before)
    moved = make(ids=True, first=FIRST + 100_000, image=app.image)
    check_same(moved, before)
    root(moved, "sh", "-c", bookworm.upgrade())
    check_sound(moved)
    run_all(moved)
    root(moved, "apt-get", "remove", "--purge", "--yes", *bookworm.MANY[::2])
    check_sound(moved)


def check_commits(app: Commands, before: str) -> None:
    """Check that a system is what it was once it is a layer: of each kind, the image's own last."""
    work = app.session.directory / "work"
    layer = str(work / "own.layer")
    for mode, words in {"file": [layer], "layer": [], "binary": []}.items():
        variables = dict(VARIABLES)
        if mode != "binary":
            variables["FIM_DIR_DATA"] = str(work / f"{mode}.data")
            app.session.output(
                *("fimctl", "data", "copy", app.image, variables["FIM_DIR_DATA"]), seconds=SECONDS
            )
        committed = replace(app, variables=variables)
        committed.output("fim-layer", "commit", mode, *words, seconds=SECONDS)
        if mode == "file":
            committed = replace(app, variables={**variables, "FIM_LAYERS": layer})
        check_same(committed, before)


def check_same(app: Commands, before: str) -> None:
    """Check that a system is what it was before, and works."""
    assert difference(root(app, "sh", "-c", bookworm.LIST), before) == set()
    check_sound(app)
    run_all(app)


def difference(one: str, other: str) -> set[str]:
    """Return the lines that are in one of two texts alone."""
    return set(one.splitlines()) ^ set(other.splitlines())


def run_all(app: Commands) -> None:
    for name, script in CHECKS.items():
        assert "7" in root(app, "sh", "-c", script).split(), name
