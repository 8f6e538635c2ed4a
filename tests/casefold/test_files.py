"""What POSIX promises of a file holds through the view, over a directory and over unions."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.files import is_locked

if TYPE_CHECKING:
    from tests.casefold.conftest import View


# opening


def test_excl_refuses_what_exists(view: View) -> None:
    os.close(os.open(view.root / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with pytest.raises(FileExistsError):
        os.open(view.root / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_trunc_empties_a_file(view: View) -> None:
    (view.root / "file").write_text("content")
    os.close(os.open(view.root / "FILE", os.O_WRONLY | os.O_TRUNC))
    assert (view.root / "file").stat().st_size == 0


def test_append_writes_at_the_end_whatever_the_position(view: View) -> None:
    (view.root / "log").write_text("one ")
    one = os.open(view.root / "log", os.O_WRONLY | os.O_APPEND)
    other = os.open(view.root / "LOG", os.O_WRONLY | os.O_APPEND)
    os.write(one, b"two ")
    os.write(other, b"three ")
    os.lseek(one, 0, os.SEEK_SET)
    os.write(one, b"four")
    os.close(one)
    os.close(other)
    assert (view.root / "Log").read_text() == "one two three four"


def test_tmpfile_is_refused_as_unsupported(view: View) -> None:
    with pytest.raises(OSError, match="not supported") as refusal:
        os.open(view.root, os.O_TMPFILE | os.O_RDWR)
    assert refusal.value.errno == errno.EOPNOTSUPP


def test_directory_and_nofollow_flags_hold(view: View) -> None:
    (view.root / "file").touch()
    (view.root / "link").symlink_to("file")
    with pytest.raises(NotADirectoryError):
        os.open(view.root / "FILE", os.O_DIRECTORY)
    with pytest.raises(OSError, match="symbolic links"):
        os.open(view.root / "LINK", os.O_NOFOLLOW)


def test_a_file_of_mode_0400_can_be_written_by_who_creates_it(view: View) -> None:
    descriptor = os.open(view.root / "f", os.O_CREAT | os.O_WRONLY, 0o400)
    assert os.write(descriptor, b"x") == 1
    os.close(descriptor)
    assert stat.S_IMODE((view.root / "f").stat().st_mode) == 0o400


def test_the_creators_umask_is_honoured(view: View) -> None:
    before = os.umask(0o027)
    try:
        (view.root / "file").touch(0o666)
        (view.root / "dir").mkdir(0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((view.root / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((view.root / "dir").stat().st_mode) == 0o750


def test_direct_io_reads_and_writes_unaligned(view: View) -> None:
    descriptor = os.open(view.root / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    os.pwrite(descriptor, b"direct", 3)
    assert os.pread(descriptor, 20, 0) == b"\0\0\0direct"
    os.close(descriptor)


def test_an_executable_runs(view: View) -> None:
    (view.root / "Script").write_text("#!/bin/sh\necho ran $1\n")
    (view.root / "script").chmod(0o755)
    output = subprocess.run(
        [view.root / "SCRIPT", "well"], capture_output=True, check=True, timeout=60
    )
    assert output.stdout == b"ran well\n"


# contents


def test_large_contents_survive(view: View) -> None:
    content = os.urandom(3_000_001)
    (view.root / "Big").write_bytes(content)
    assert (view.root / "bIG").read_bytes() == content


def test_a_hole_reads_as_zeros(view: View) -> None:
    with (view.root / "f").open("wb") as file:
        file.seek(100_000)
        file.write(b"end")
    assert (view.root / "f").read_bytes() == bytes(100_000) + b"end"


def test_truncate_shortens_and_lengthens_by_name_and_by_descriptor(view: View) -> None:
    (view.root / "f").write_bytes(b"0123456789")
    os.truncate(view.root / "F", 4)
    assert (view.root / "f").read_bytes() == b"0123"
    with (view.root / "f").open("r+b") as file:
        file.truncate(6)
        assert file.read() == b"0123\0\0"
        file.truncate(0)
    assert (view.root / "F").stat().st_size == 0


def test_posix_fallocate_makes_room(view: View) -> None:
    with (view.root / "f").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 10_000)
    assert (view.root / "f").stat().st_size == 10_000


def test_fsync_succeeds_for_files_and_directories(view: View) -> None:
    with (view.root / "f").open("wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    descriptor = os.open(view.root, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_what_one_process_writes_another_that_has_the_file_open_reads(view: View) -> None:
    (view.root / "f").write_text("before")
    reader = os.open(view.root / "f", os.O_RDONLY)
    code = f"open({str(view.root / 'F')!r}, 'r+').write('behind')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert os.pread(reader, 10, 0) == b"behind"
    os.close(reader)


def test_a_shared_mapping_is_written_back_and_seen_by_readers(view: View) -> None:
    (view.root / "f").write_bytes(bytes(10_000))
    with (view.root / "F").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5000:5003] = b"abc"
        memory.flush()
        assert (view.root / "f").read_bytes()[4999:5004] == b"\0abc\0"
        with (view.root / "f").open("r+b") as other:
            other.seek(7000)
            other.write(b"xyz")
            other.flush()
        assert memory[7000:7003] == b"xyz"
    assert (view.source / "f").read_bytes()[5000:5003] == b"abc"


def test_a_removed_file_stays_usable_while_it_is_open(view: View) -> None:
    (view.root / "f").write_text("kept")
    with (view.root / "f").open("r+") as file:
        (view.root / "f").unlink()
        assert not (view.root / "f").exists()
        assert file.read() == "kept"
        file.write(" and more")
        file.flush()
        file.truncate(6)
        os.fchmod(file.fileno(), 0o600)
        file.seek(0)
        assert file.read() == "kept a"
        assert os.fstat(file.fileno()).st_size == 6
    (view.root / "f").write_text("another")
    assert (view.root / "F").read_text() == "another"


def test_a_replaced_file_stays_readable_while_it_is_open(view: View) -> None:
    (view.root / "f").write_text("old")
    (view.root / "g").write_text("new one")
    with (view.root / "f").open() as file:
        os.replace(view.root / "g", view.root / "f")
        assert file.read() == "old"
    assert (view.root / "f").read_text() == "new one"


# metadata


def test_mode_and_times_are_set_and_kept(view: View) -> None:
    (view.root / "f").touch()
    os.chmod(view.root / "F", 0o4751)
    os.utime(view.root / "F", ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
    status = (view.root / "f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4751
    assert (status.st_atime_ns, status.st_mtime_ns) == (
        1_000_000_000_123_456_789,
        1_100_000_000_987_654_321,
    )


def test_a_links_own_times_are_set_without_following_it(view: View) -> None:
    (view.root / "f").touch()
    (view.root / "l").symlink_to("f")
    before = (view.root / "f").stat().st_mtime_ns
    os.utime(view.root / "l", ns=(1_000_000_000, 2_000_000_000), follow_symlinks=False)
    assert (view.root / "l").lstat().st_mtime_ns == 2_000_000_000
    assert (view.root / "f").stat().st_mtime_ns == before


def test_writing_changes_the_modification_time_and_size_that_are_seen(view: View) -> None:
    (view.root / "f").write_text("x")
    before = (view.root / "F").stat()
    time.sleep(0.02)
    with (view.root / "f").open("a") as file:
        file.write("yz")
    after = (view.root / "F").stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_size == 3


def test_a_directorys_time_and_link_count_follow_its_entries(plain: View) -> None:
    before = plain.root.stat()
    time.sleep(0.02)
    (plain.root / "Dir").mkdir()
    after = plain.root.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_nlink == before.st_nlink + 1


def test_inode_numbers_are_the_same_in_every_spelling_and_listing(view: View) -> None:
    (view.root / "f").touch()
    (view.root / "d").mkdir()
    with os.scandir(view.root) as entries:
        listed = {entry.name: entry.inode() for entry in entries}
    assert listed == {name: (view.root / name.upper()).stat().st_ino for name in ("f", "d")}
    assert len(set(listed.values())) == 2


def test_extended_attributes_are_kept(view: View) -> None:
    (view.root / "f").touch()
    try:
        os.setxattr(view.root / "F", "user.Name", b"value")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("the source has no extended attributes")
        raise
    assert os.getxattr(view.root / "f", "user.Name") == b"value"
    assert "user.Name" in os.listxattr(view.root / "f")
    with pytest.raises(FileExistsError):
        os.setxattr(view.root / "f", "user.Name", b"x", os.XATTR_CREATE)
    os.removexattr(view.root / "f", "user.Name")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(view.root / "f", "user.Name")


def test_statfs_tells_of_the_source(view: View) -> None:
    shown, source = os.statvfs(view.root), os.statvfs(view.source)
    assert (shown.f_frsize, shown.f_blocks, shown.f_namemax) == (
        source.f_frsize,
        source.f_blocks,
        source.f_namemax,
    )


# locks


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_lock_holds_in_every_spelling(plain: View, kind: str) -> None:
    (plain.root / "f").touch()
    with (plain.root / "F").open("r+") as file:
        getattr(fcntl, kind)(file, fcntl.LOCK_EX)
        assert is_locked(plain.root / "f", kind)
        getattr(fcntl, kind)(file, fcntl.LOCK_UN)
        assert not is_locked(plain.root / "f", kind)
