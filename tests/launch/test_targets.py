"""Where mounts lie in a tree: as in a chroot of it, whatever links it has, and not on the host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fimd.launch.bindings import Bind

RESOLVE = """
import json, os, sys
from contextlib import ExitStack
from fimd.launch.targets import resolve
root = os.open(sys.argv[1], os.O_PATH | os.O_DIRECTORY)
print(json.dumps([found[:2] for found in resolve(root, json.load(sys.stdin), ExitStack())[0]]))
"""
STANDARD = (
    Bind("--dev", "", "/dev"),
    Bind("--proc", "", "/proc"),
    Bind("--bind", "/tmp", "/tmp"),
    Bind("--ro-bind", "/sys", "/sys"),
)


def resolve(tree: Path, *binds: Bind) -> list[tuple[str | None, str]]:
    """Work targets out in a process of its own, which has to be root of something."""
    asked = [[bind.option, bind.source, bind.target] for bind in (*STANDARD, *binds)]
    words = [*([] if os.getuid() == 0 else ["unshare", "-Ur"]), sys.executable, "-c", RESOLVE]
    done = subprocess.run(
        [*words, tree], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return [(at, why) for at, why in json.loads(done.stdout)[len(STANDARD) :]]


def file(target: str, option: str = "--ro-bind-try") -> Bind:
    return Bind(option, "/etc/hostname", target)


def directory(target: str) -> Bind:
    return Bind("--bind-try", "/usr", target)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    for name in ("etc", "usr/lib", "tmp", "dev", "proc", "sys"):
        (path / name).mkdir(parents=True)
    (path / "etc" / "hosts").touch()
    return path


@pytest.mark.parametrize(
    ("link", "to", "target", "found"),
    [
        ("etc/r", "../run/s/stub", "/etc/r", "/run/s/stub"),
        ("etc/r", "/usr/etc/r", "/etc/r", "/usr/etc/r"),
        ("etc/r", "../../../../usr/x", "/etc/r", "/usr/x"),
        ("etc/r", "hosts", "/etc/r", "/etc/hosts"),
        ("home", "/var/home", "/home/me/x", "/var/home/me/x"),
        ("home", "var/home", "/home", "/var/home"),
        ("lib", "usr/lib", "/lib/../lib/./a", "/usr/lib/a"),
        ("etc/r", "/oldroot/home/x", "/etc/r", "/oldroot/home/x"),
        ("etc/r", "/newroot/../x", "/etc/r", "/x"),
    ],
)
def test_links_lead_where_they_lead_inside(
    tree: Path, link: str, to: str, target: str, found: str
) -> None:
    (tree / link).symlink_to(to)
    assert resolve(tree, file(target)) == [(found, "")]
    assert (tree / found[1:]).read_bytes() == b""


def test_what_is_missing_is_made_in_the_tree(tree: Path) -> None:
    assert resolve(tree, file("/a/b/c"), directory("/d/e"), file("/a/b/d")) == [
        *(("/a/b/c", ""), ("/d/e", ""), ("/a/b/d", ""))
    ]
    assert (tree / "a/b/c").is_file()
    assert (tree / "d/e").is_dir()
    assert (tree / "d/e").stat().st_mode & 0o777 == 0o755


def test_what_does_not_fit_is_left_out_with_a_reason(tree: Path) -> None:
    (tree / "loop").symlink_to("loop")
    (tree / "etc" / "resolv.conf").mkdir()
    assert resolve(
        tree,
        *(file("/loop/x"), file("/etc/resolv.conf"), directory("/etc/hosts"), file("/")),
        *(file("/etc/hosts/x"), Bind("--bind-try", "/nowhere", "/x"), directory("/usr/..")),
    ) == [
        (None, "/loop is one of a loop of links"),
        (None, "there is a directory in place of a file"),
        (None, "there is a file in place of a directory"),
        (None, "it would hide all of the image"),
        (None, "/etc/hosts is no directory"),
        (None, ""),
        (None, "it would hide all of the image"),
    ]
    assert not (tree / "x").exists()


def test_on_the_host_nothing_is_made(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "there").mkdir(parents=True)
    nothing = "there is no such thing, and on the host nothing is made for it"
    shown = Bind("--bind-try", str(outside), "/shown")
    assert resolve(
        tree,
        *(shown, file("/shown/new"), directory("/shown/a/b"), directory("/shown/there")),
        *(file(f"{outside}/new"), directory("/sys/new"), directory("/proc/new")),
    ) == [
        *(("/shown", ""), (None, nothing), (None, nothing), ("/shown/there", "")),
        *((None, nothing), (None, nothing), (None, nothing)),
    ]
    assert [path.name for path in outside.iterdir()] == ["there"]


def test_links_of_what_is_shown_lead_nowhere_on_the_host(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, to in (("up", "../x"), ("absolute", "/oldroot/y"), ("host", str(tmp_path))):
        (outside / name).symlink_to(to)
    shown = Bind("--bind-try", str(outside), "/deep/shown")
    assert resolve(tree, shown, file("/deep/shown/up"), file("/deep/shown/absolute/z")) == [
        *(("/deep/shown", ""), ("/deep/x", ""), ("/oldroot/y/z", ""))
    ]
    assert (tree / "deep/x").is_file()
    [_, (at, why)] = resolve(tree, shown, file("/deep/shown/host/new"))
    assert (at, why[:25]) == (None, "there is no such thing, a")
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "tree"}


def test_the_kernels_own_links_are_followed_nowhere(tree: Path) -> None:
    for target in ("/proc/self/root/x", "/proc/1/root/x", "/dev/fd/3", "/dev/stdin", "/dev/fd"):
        [(at, why)] = resolve(tree, file(target))
        assert at is None
        assert why
    (tree / "mnt").symlink_to("/proc/self/root")
    assert resolve(tree, file("/mnt/x"))[0][0] is None


def test_devices_are_bubblewraps_to_make(tree: Path) -> None:
    assert resolve(tree, directory("/dev/snd"), file("/dev/null"), directory("/dev/shm")) == [
        *(("/dev/snd", ""), ("/dev/null", ""), ("/dev/shm", ""))
    ]
    assert list((tree / "dev").iterdir()) == []


def test_standard_places_may_be_links_as_well(tree: Path) -> None:
    (tree / "tmp").rmdir()
    (tree / "tmp").symlink_to("/var/tmp")
    (tree / "dev").rmdir()
    (tree / "dev").symlink_to("/oldroot/dev")
    assert resolve(tree, directory("/tmp/none-of-that"), file("/dev/x"))[0][0] is None
    assert (tree / "var/tmp").is_dir()
    assert (tree / "oldroot/dev").is_dir()


def test_a_later_mount_hides_an_earlier_one(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / name).mkdir(parents=True)
    one, two = (Bind("--bind", str(tmp_path / name), "/m") for name in ("one", "two"))
    inner = Bind("--bind", str(tmp_path), "/m/one")
    assert resolve(tree, one, inner, directory("/m/one/two"), two, directory("/m/two"))[2:] == [
        *(("/m/one/two", ""), ("/m", ""), ("/m/two", ""))
    ]
    assert resolve(tree, one, inner, two, directory("/m/one/two"))[3][0] is None
