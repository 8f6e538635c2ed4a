"""Links, directories and owners are what they are elsewhere, also for many at a time."""

from __future__ import annotations

import mmap
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fimd.casefold.copy_up import branches_with

if TYPE_CHECKING:
    from tests.casefold.conftest import Serve, Serving, View


PROJECT = Path(__file__).resolve().parents[2]


# unions


def test_what_a_branch_has_is_told_without_following_its_links(tmp_path: Path) -> None:
    branches = [str(tmp_path / name) for name in ("upper", "lower")]
    for place in ("outside", "lower/dir"):
        (tmp_path / place / "inner").mkdir(parents=True)
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "dir").symlink_to(tmp_path / "outside")
    assert branches_with(branches, b"dir") == 2
    assert branches_with(branches, b"dir/inner") == 1
    assert branches_with(branches, b"dir/" + b"n" * 300) == 0


def test_a_branch_that_can_not_be_looked_into_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        branches_with([str(tmp_path / "gone")], b"dir")


# links and special files


def test_a_symbolic_links_target_is_kept_as_written_and_followed_in_any_case(view: View) -> None:
    (view.root / "Dir").mkdir()
    (view.root / "Dir" / "File").write_text("x")
    (view.root / "Link").symlink_to("DIR/fiLE")
    assert os.readlink(view.root / "LINK") == "DIR/fiLE"
    assert (view.root / "lINK").read_text() == "x"


def test_a_link_out_of_the_source_leads_where_the_caller_sees_it(
    view: View, tmp_path: Path
) -> None:
    (tmp_path / "Outside").write_text("case matters")
    (view.root / "Link").symlink_to(tmp_path / "Outside")
    assert (view.root / "link").read_text() == "case matters"


def test_a_hard_link_is_the_same_file(plain: View) -> None:
    (plain.root / "One").write_text("x")
    os.link(plain.root / "one", plain.root / "Two")
    (plain.root / "TWO").write_text("changed")
    one, two = (plain.root / "ONE").stat(), (plain.root / "two").stat()
    assert (one.st_ino, one.st_nlink) == (two.st_ino, 2)
    assert (plain.root / "one").read_text() == "changed"
    (plain.root / "one").unlink()
    assert (plain.root / "two").stat().st_nlink == 1
    assert (plain.root / "two").read_text() == "changed"


def test_hard_links_that_were_there_before_are_the_same_file(source: Path, serve: Serve) -> None:
    (source / "One").write_text("x")
    (source / "sub").mkdir()
    os.link(source / "One", source / "sub" / "Two")
    view = serve(source)
    assert (view.root / "ONE").stat().st_ino == (view.root / "SUB" / "TWO").stat().st_ino
    with (view.root / "one").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        (view.root / "sub" / "two").write_text("y")
        assert memory[:1] == b"y"


def test_fifos_and_sockets_work(view: View) -> None:
    os.mkfifo(view.root / "Fifo")
    writer = threading.Thread(target=lambda: (view.root / "FIFO").write_text("through"))
    writer.start()
    assert (view.root / "fifo").read_text() == "through"
    writer.join()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        directory = os.open(view.root, os.O_PATH)
        server.bind(f"/proc/self/fd/{directory}/Socket")
        server.listen()
        client.connect(f"/proc/self/fd/{directory}/SOCKET")
        os.close(directory)
    assert stat.S_ISSOCK((view.root / "socket").stat().st_mode)


def test_device_nodes_are_made_where_allowed(plain: View) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    try:
        os.mknod(plain.source / "probe", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device nodes may be made here")
    os.mknod(plain.root / "Null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert (plain.root / "NULL").stat().st_rdev == os.makedev(1, 3)


# directories


def test_a_directory_that_is_not_empty_stays(view: View) -> None:
    (view.root / "Dir").mkdir()
    (view.root / "dir" / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        (view.root / "DIR").rmdir()
    assert (view.root / "Dir" / "File").exists()


def test_a_directory_moves_with_what_is_open_below_it(view: View) -> None:
    (view.root / "a" / "b" / "c").mkdir(parents=True)
    (view.root / "a/b/c/f").write_text("x")
    (view.root / "other").mkdir()
    with (view.root / "A/B/C/F").open("r+") as file:
        inside = os.open(view.root / "a/b", os.O_RDONLY)
        os.rename(view.root / "A/b", view.root / "OTHER/New")
        file.write("y")
        file.flush()
        assert (view.root / "other/new/C/f").read_text() == "y"
        assert os.listdir(inside) == ["c"]
        assert os.stat("C/F", dir_fd=inside).st_size == 1
        os.close(inside)
    assert os.listdir(view.root / "a") == []


def test_a_directory_cannot_move_into_itself(view: View) -> None:
    (view.root / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError, match="Invalid argument"):
        os.rename(view.root / "A", view.root / "a/B/c")


def test_a_removed_working_directory_is_empty_and_takes_nothing(plain: View) -> None:
    (plain.root / "d").mkdir()
    inside = os.open(plain.root / "d", os.O_RDONLY)
    (plain.root / "D").rmdir()
    assert os.listdir(inside) == []
    assert os.fstat(inside).st_nlink == 0
    with pytest.raises(FileNotFoundError):
        os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=inside)
    os.close(inside)


def test_a_listing_that_is_under_way_misses_nothing_and_repeats_nothing(view: View) -> None:
    stay = {f"stay{number:04}" for number in range(600)}
    for name in stay:
        (view.root / name).touch()
    for number in range(100):
        (view.root / f"go{number}").touch()
    seen = []
    with os.scandir(view.root) as entries:
        for position, entry in enumerate(entries):
            seen.append(entry.name)
            if position < 100:
                (view.root / f"go{position}").unlink()
                (view.root / f"new{position}").touch()
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)
    assert set(os.listdir(view.root)) == stay | {f"new{number}" for number in range(100)}


def test_rewinding_a_listing_shows_what_is_new(view: View) -> None:
    (view.root / "one").touch()
    descriptor = os.open(view.root, os.O_RDONLY)
    assert os.listdir(descriptor) == ["one"]
    (view.root / "two").touch()
    assert sorted(os.listdir(descriptor)) == ["one", "two"]
    os.close(descriptor)


def test_a_listing_begins_with_the_directory_and_the_one_above(plain: View) -> None:
    (plain.root / "Dir").mkdir()
    listing = subprocess.run(
        ["ls", "-f", "-i", "-1", plain.root / "DIR"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    numbers = [(plain.root / "dir").stat().st_ino, plain.root.stat().st_ino]
    assert listing == [str(numbers[0]), ".", str(numbers[1]), ".."]


def test_trees_can_be_copied_and_removed(view: View) -> None:
    for number in range(40):
        directory = view.root / f"Tree/D{number % 5}/E{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"F{number}").write_text(str(number))
    subprocess.run(["cp", "-a", view.root / "tree", view.root / "Copy"], check=True, timeout=60)
    assert (view.root / "COPY/d4/e1/f4").read_text() == "4"
    subprocess.run(["rm", "-r", view.root / "TREE", view.root / "cOPY"], check=True, timeout=60)
    assert os.listdir(view.root) == []


# owners


RunAs = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def as_user(open_up: Callable[[Path], None]) -> RunAs:
    """Runs a shell's command in a view's directory as a user without rights."""
    if os.getuid() != 0:
        pytest.skip("needs root")

    def run(view: View, command: str) -> subprocess.CompletedProcess[str]:
        open_up(view.root)
        ids = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        return subprocess.run(
            [*ids, "sh", "-c", command],
            cwd=view.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_what_a_user_makes_is_the_users_own(view: View, as_user: RunAs) -> None:
    view.root.chmod(0o777)
    made = as_user(view, "touch File && mkdir Dir && ln -s x Link && mkfifo P")
    assert made.returncode == 0, made.stderr
    for name in ("file", "dir", "link", "p"):
        status = (view.root / name).lstat()
        assert (name, status.st_uid, status.st_gid) == (name, 65534, 65534)


def test_a_set_group_id_directory_gives_its_group(plain: View, as_user: RunAs) -> None:
    (plain.root / "d").mkdir()
    os.chown(plain.root / "d", 0, 1234)
    (plain.root / "d").chmod(0o2777)
    assert as_user(plain, "cd D && touch F && mkdir D").returncode == 0
    assert (plain.root / "d/f").stat().st_gid == 1234
    assert (plain.root / "d/d").stat().st_gid == 1234
    assert (plain.root / "d/d").stat().st_mode & stat.S_ISGID


def test_permissions_are_enforced_for_other_users(plain: View, as_user: RunAs) -> None:
    (plain.root / "Secret").write_text("x")
    (plain.root / "secret").chmod(0o600)
    assert "Permission denied" in as_user(plain, "cat SECRET").stderr
    assert "Permission denied" in as_user(plain, "touch new").stderr


def test_writing_by_others_clears_the_set_user_id_bit(plain: View, as_user: RunAs) -> None:
    (plain.root / "f").write_text("x")
    (plain.root / "f").chmod(0o4777)
    assert as_user(plain, "echo y >> F").returncode == 0
    assert stat.S_IMODE((plain.root / "f").stat().st_mode) == 0o777


# many at a time


def test_a_slow_read_holds_nobody_up(source: Path, serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "view").mkdir()
    slow = subprocess.Popen(
        [sys.executable, PROJECT / "tests/casefold/slow_source.py", source, "3"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert slow.stdout is not None
    try:
        assert slow.stdout.readline() == "ready\n"
        with serving(source, tmp_path / "view", log=tmp_path / "log") as view:
            reader = threading.Thread(target=(view.root / "SLOW").read_bytes)
            reader.start()
            assert slow.stdout.readline() == "reading\n"
            started = time.monotonic()
            for _ in range(5):
                assert (view.root / "FAST").read_bytes() == b"content"
                assert not (view.root / "absent").exists()
            assert time.monotonic() - started < 1
            assert reader.is_alive()
            reader.join()
    finally:
        subprocess.run(["umount", source], check=True, timeout=60)
        assert slow.wait(20) == 0
        slow.stdout.close()


def test_many_threads_create_and_remove_without_getting_in_each_others_way(view: View) -> None:
    failures = []

    def work(number: int) -> None:
        try:
            for turn in range(25):
                path = view.root / "Shared" / f"File{number}-{turn}"
                path.write_text(f"{number} {turn}")
                os.rename(path, path.with_name(f"RENAMED{number}-{turn}"))
                assert (
                    view.root / f"shared/renamed{number}-{turn}"
                ).read_text() == f"{number} {turn}"
                if turn % 2:
                    (view.root / f"SHARED/renamed{number}-{turn}").unlink()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the test has to tell
            failures.append(error)

    (view.root / "shared").mkdir()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    left = {f"renamed{number}-{turn}" for number in range(6) for turn in range(0, 25, 2)}
    assert set(os.listdir(view.root / "shared")) == left
