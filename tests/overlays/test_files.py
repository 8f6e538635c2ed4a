"""What POSIX promises of a file holds on every overlay, whether it is new or a layer's."""

import ctypes
import fcntl
import mmap
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.overlays.stacks import Place
from tests.support.account import is_root_of_others
from tests.support.files import is_locked

FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2

ORIGINS = pytest.mark.parametrize("origin", ["new", "lower"])
"""A file that was made here, and one that comes up from a layer when it is changed."""


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), without what the C library's posix_fallocate does in its place."""
    call = ctypes.CDLL(None, use_errno=True).fallocate
    if call(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def file_of(place: Place, origin: str, content: str = "lower\n") -> Path:
    path = place / ("file" if origin == "lower" else "made")
    if origin == "new":
        path.write_text(content)
    return path


# opening


def test_create_makes_a_file_that_stays(place: Place) -> None:
    (place / "new").write_text("x")
    assert (place / "new").read_text() == "x"
    assert "new" in os.listdir(place.path)
    assert (place.upper / "new").read_text() == "x"


def test_excl_refuses_what_is_there_in_the_upper_or_in_a_layer(place: Place) -> None:
    os.close(os.open(place / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    for name in ("new", "file", "link", "dir", "fifo"):
        with pytest.raises(FileExistsError):
            os.open(place / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)


@ORIGINS
def test_append_writes_at_the_end_whatever_the_position(place: Place, origin: str) -> None:
    path = file_of(place, origin)
    one = os.open(path, os.O_RDWR | os.O_APPEND)
    other = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(one, b"one ")
    os.write(other, b"two ")
    os.lseek(one, 0, os.SEEK_SET)
    os.write(one, b"three")
    os.close(one)
    os.close(other)
    assert path.read_text() == "lower\none two three"


def test_a_temporary_file_without_a_name_can_be_given_one(place: Place) -> None:
    if "temporary files" in place.limits:
        with pytest.raises(OSError, match="not supported"):
            os.open(place.path, os.O_TMPFILE | os.O_RDWR)
        return
    descriptor = os.open(place.path, os.O_TMPFILE | os.O_RDWR, 0o600)
    before = set(os.listdir(place.path))
    os.write(descriptor, b"content")
    link = f"/proc/self/fd/{descriptor}"
    os.link(link, place / "named", src_dir_fd=descriptor)  # which makes it linkat(2), and follow
    os.close(descriptor)
    assert set(os.listdir(place.path)) - before == {"named"}
    assert (place / "named").read_text() == "content"


@ORIGINS
def test_trunc_empties_a_file(place: Place, origin: str) -> None:
    path = file_of(place, origin)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert path.stat().st_size == 0
    assert path.read_bytes() == b""


def test_directory_and_nofollow_flags_hold(place: Place) -> None:
    with pytest.raises(NotADirectoryError):
        os.open(place / "file", os.O_DIRECTORY)
    with pytest.raises(OSError, match="symbolic links"):
        os.open(place / "link", os.O_NOFOLLOW)
    with pytest.raises(IsADirectoryError):
        os.open(place / "dir", os.O_WRONLY)


def test_opening_for_writing_alone_leaves_the_content(place: Place) -> None:
    os.close(os.open(place / "big", os.O_RDWR))
    assert (place / "big").read_bytes() == b"0123456789abcdef" * 20_000


def test_a_file_that_its_maker_may_not_write_is_written_by_the_descriptor(place: Place) -> None:
    descriptor = os.open(place / "new", os.O_CREAT | os.O_WRONLY, 0o400)
    assert os.write(descriptor, b"x") == 1
    os.close(descriptor)
    assert stat.S_IMODE((place / "new").stat().st_mode) == 0o400


def test_the_creators_umask_is_honoured(place: Place) -> None:
    before = os.umask(0o027)
    try:
        (place / "made").touch(0o666)
        (place / "folder").mkdir(0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "made").stat().st_mode) == 0o640
    assert stat.S_IMODE((place / "folder").stat().st_mode) == 0o750


def test_an_executable_of_a_layer_runs_also_when_it_is_changed(place: Place) -> None:
    def run() -> bytes:
        return subprocess.run([place / "script"], capture_output=True, check=True).stdout

    assert run() == b"ran\n"
    with (place / "script").open("a") as file:
        file.write("echo twice\n")
    assert run() == b"ran\ntwice\n"


# contents


@ORIGINS
def test_truncate_shortens_and_lengthens_by_name_and_by_descriptor(
    place: Place, origin: str
) -> None:
    path = file_of(place, origin)
    os.truncate(path, 3)
    assert path.read_bytes() == b"low"
    with path.open("r+b") as file:
        file.truncate(6)
        assert file.read() == b"low\0\0\0"
        assert os.fstat(file.fileno()).st_size == 6
    assert path.stat().st_size == 6


def test_a_hole_reads_as_zeros_and_takes_no_room(place: Place) -> None:
    with (place / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    status = (place / "sparse").stat()
    assert status.st_size == (64 << 20) + 3
    assert status.st_blocks * 512 < 1 << 20
    with (place / "sparse").open("rb") as file:
        assert file.read(4096) == bytes(4096)
        file.seek(64 << 20)
        assert file.read() == b"end"


def test_a_write_into_the_middle_of_a_layers_file_keeps_the_rest(place: Place) -> None:
    content = bytearray(b"0123456789abcdef" * 20_000)
    with (place / "big").open("r+b") as file:
        file.seek(200_001)
        file.write(b"changed")
    content[200_001:200_008] = b"changed"
    assert (place / "big").read_bytes() == content


def test_what_is_written_is_read_by_who_had_the_file_open_before(place: Place) -> None:
    (place / "made").write_text("before")
    reader = os.open(place / "made", os.O_RDONLY)
    with (place / "made").open("r+") as file:
        file.write("behind")
    assert os.pread(reader, 10, 0) == b"behind"
    os.close(reader)


def test_who_has_a_layers_file_open_when_it_is_changed(place: Place) -> None:
    reader = os.open(place / "file", os.O_RDONLY)
    with (place / "file").open("r+") as file:
        file.write("other")
    seen = os.pread(reader, 10, 0)
    os.close(reader)
    assert seen == (b"lower\n" if "readers of layers" in place.limits else b"other\n")
    assert (place / "file").read_text() == "other\n"


def test_fsync_succeeds_for_files_and_directories(place: Place) -> None:
    with (place / "file").open("r+b") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    descriptor = os.open(place.path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@ORIGINS
def test_a_shared_mapping_is_written_back_and_seen_by_readers(place: Place, origin: str) -> None:
    path = place / "big"
    if origin == "new":
        path = place / "mapped"
        path.write_bytes(bytes(10_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5000:5003] = b"abc"
        memory.flush()
        assert path.read_bytes()[5000:5003] == b"abc"
        with path.open("r+b") as other:
            other.seek(7000)
            other.write(b"xyz")
            other.flush()
        assert memory[7000:7003] == b"xyz"


@ORIGINS
def test_a_removed_file_stays_usable_while_it_is_open(place: Place, origin: str) -> None:
    path = file_of(place, origin)
    with path.open("r+") as file:
        path.unlink()
        assert not path.exists()
        assert file.read() == "lower\n"
        file.write("and more")
        file.flush()
        file.truncate(9)
        file.seek(0)
        assert file.read() == "lower\nand"
        assert os.fstat(file.fileno()).st_size == 9
    path.write_text("another")
    assert path.read_text() == "another"


def test_a_replaced_file_stays_readable_while_it_is_open(place: Place) -> None:
    (place / "new").write_text("new one")
    with (place / "file").open() as file:
        os.replace(place / "new", place / "file")
        assert file.read() == "lower\n"
    assert (place / "file").read_text() == "new one"


# metadata


@pytest.mark.parametrize("name", ["file", "full", "made", "folder"])
def test_mode_and_times_are_set_and_kept(place: Place, name: str) -> None:
    path = place / name
    if name == "made":
        path.touch()
    elif name == "folder":
        path.mkdir()
    content = sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()
    path.chmod(0o1750)
    os.utime(path, ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o1750
    assert status.st_mtime_ns == 1_100_000_000_987_654_321
    if not path.is_dir():  # which fuse-overlayfs reads whenever it is looked at
        assert status.st_atime_ns == 1_000_000_000_123_456_789
    assert content == (sorted(os.listdir(path)) if path.is_dir() else path.read_bytes())


def test_a_links_own_times_are_set_without_following_it(place: Place) -> None:
    before = (place / "file").stat().st_mtime_ns
    os.utime(place / "link", ns=(1_000_000_000, 2_000_000_000), follow_symlinks=False)
    assert (place / "link").lstat().st_mtime_ns == 2_000_000_000
    assert (place / "file").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["file", "dir", "made"])
def test_an_owner_is_set_and_kept(place: Place, name: str) -> None:
    if name == "made":
        (place / name).touch()
    user, group = (1234, 4321) if is_root_of_others() else (os.getuid(), os.getgid())
    os.chown(place / name, user, group)
    status = (place / name).stat()
    assert (status.st_uid, status.st_gid) == (user, group)


@ORIGINS
def test_writing_changes_the_modification_time_and_size_that_are_seen(
    place: Place, origin: str
) -> None:
    path = file_of(place, origin)
    before = path.stat()
    time.sleep(0.02)
    with path.open("a") as file:
        file.write("yz")
    after = path.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_size == before.st_size + 2


def test_coming_up_from_a_layer_changes_neither_mode_nor_owner_nor_content(place: Place) -> None:
    before = (place / "script").stat()
    with (place / "script").open("a"):
        pass
    os.utime(place / "script", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (place / "script").stat()
    for fact in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
        assert getattr(after, fact) == getattr(before, fact), fact


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_what_is_made_has_the_mode_that_the_umask_leaves(place: Place, umask: int) -> None:
    before = os.umask(umask)
    try:
        (place / "new file").touch()
        (place / "new dir").mkdir()
        os.mkfifo(place / "new fifo")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((place / f"new {kind}").stat().st_mode) for kind in ("file", "dir")]
    assert modes == [0o666 & ~umask, 0o777 & ~umask]
    mode = stat.S_IMODE((place / "new fifo").stat().st_mode)
    assert mode == 0o666 & ~umask or (mode == 0o666 and "modes of fifos" in place.limits)


def test_the_special_bits_of_what_comes_up_from_a_layer_are_kept(place: Place) -> None:
    (place / "setuid").rename(place / "renamed")
    (place / "setgid" / "file").touch()
    assert (place / "renamed").stat().st_mode & 0o4000
    # releases of fuse-overlayfs differ in what they lose
    assert (place / "setgid").stat().st_mode & 0o2000 or "special bits" in place.limits


def test_a_fifo_that_comes_up_from_a_layer_is_one_still(place: Place) -> None:
    (place / "fifo").rename(place / "renamed")
    is_fifo = stat.S_ISFIFO((place.upper / "renamed").lstat().st_mode)
    assert is_fifo == ("special files" not in place.limits)


@ORIGINS
def test_extended_attributes_are_kept_or_refused(place: Place, origin: str) -> None:
    path = file_of(place, origin)
    if "extended attributes" in place.limits:
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(path, "user.name", b"value")
        with pytest.raises(OSError, match="not supported"):
            os.listxattr(path)
        return
    os.setxattr(path, "user.name", b"value")
    assert os.getxattr(path, "user.name") == b"value"
    assert os.listxattr(path) == ["user.name"]
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.name", b"x", os.XATTR_CREATE)
    os.removexattr(path, "user.name")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "user.name")
    assert path.read_text() == "lower\n"


def test_statfs_tells_of_the_upper(place: Place) -> None:
    shown, upper = os.statvfs(place.path), os.statvfs(place.upper.parent)
    assert shown.f_blocks * shown.f_frsize == upper.f_blocks * upper.f_frsize
    assert shown.f_namemax == (251 if "long names" in place.limits else 255)


def test_permissions_are_enforced_for_other_users(place: Place) -> None:
    if not is_root_of_others():
        pytest.skip("there are no other users")
    (place / "file").chmod(0o600)
    script = """
import os, sys
os.fchdir(3)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for action in (lambda: open("file"), lambda: open("new", "w"), lambda: os.unlink("big")):
    try:
        action()
    except PermissionError:
        print("refused")
"""
    here = os.open(place.path, os.O_RDONLY)
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.dup2({here}, 3){script}"],
        pass_fds=[here],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    os.close(here)
    assert done.stdout.split() == ["refused"] * 3


# locks


@ORIGINS
@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_lock_keeps_other_processes_out(place: Place, kind: str, origin: str) -> None:
    path = file_of(place, origin)
    with path.open("r+") as file:
        getattr(fcntl, kind)(file, fcntl.LOCK_EX)
        assert is_locked(path, kind)
        getattr(fcntl, kind)(file, fcntl.LOCK_UN)
        assert not is_locked(path, kind)


def test_a_lock_by_one_name_is_seen_by_another(place: Place) -> None:
    with (place / "made").open("w") as file:
        os.link(place / "made", place / "another")
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(place / "another", "flock")


# what few programs ask for


@pytest.mark.parametrize("mode", [0, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE])
@ORIGINS
def test_room_is_allocated_and_given_back(place: Place, origin: str, mode: int) -> None:
    with file_of(place, origin, "lower\n").open("r+b") as file:
        if "allocated room" in place.limits:
            with pytest.raises(OSError, match="not supported"):
                fallocate(file.fileno(), mode, 0, 65536)
            return
        fallocate(file.fileno(), mode, 0, 65536)
        assert os.fstat(file.fileno()).st_size == (65536 if mode == 0 else 6)
        assert os.pread(file.fileno(), 6, 0) == (b"lower\n" if mode == 0 else bytes(6))


def test_the_c_librarys_way_to_allocate_room_always_works(place: Place) -> None:
    with (place / "file").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 100_000
        assert os.pread(file.fileno(), 10, 0) == b"lower\n" + bytes(4)


def test_holes_are_found(place: Place) -> None:
    with (place / "made").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    with (place / "made").open("rb") as file:
        found = os.lseek(file.fileno(), 0, os.SEEK_DATA), os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    if "looking for holes" in place.limits:
        assert found == (0, (8 << 20) + 3)
    else:
        assert found == (8 << 20, 0)


@ORIGINS
def test_direct_io_reads_and_writes_what_others_see(place: Place, origin: str) -> None:
    path = place / ("big" if origin == "lower" else "made")
    if origin == "new":
        path.write_bytes(b"0123456789abcdef" * 512)
    descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        assert os.preadv(descriptor, [page], 4096) == 4096
        assert page[:16] == b"0123456789abcdef"
        page[:4] = b"abcd"
        assert os.pwritev(descriptor, [page], 4096) == 4096
    os.close(descriptor)
    assert path.read_bytes()[4090:4104] == b"abcdefabcd4567"


def test_a_new_file_has_a_birth_time(place: Place) -> None:
    (place / "made").touch()
    said = subprocess.run(["stat", "-c", "%W", place / "made"], capture_output=True, check=True)
    assert (int(said.stdout) > 0) == ("birth times" not in place.limits)


def test_a_socket_is_reached_by_a_second_and_by_a_new_name(place: Place) -> None:
    here = os.open(place.path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/one")
        server.listen()
        os.link(place / "one", place / "two")
        os.rename(place / "one", place / "three")
        for name in ("two", "three"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"/proc/self/fd/{here}/{name}")
    os.close(here)


def make_long_path(directory: Path) -> None:
    opened = [os.open(directory, os.O_RDONLY)]
    try:
        for _ in range(40):
            os.mkdir("n" * 200, dir_fd=opened[-1])
            opened.append(os.open("n" * 200, os.O_RDONLY, dir_fd=opened[-1]))
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=opened[-1]))
        assert os.listdir(opened[-1]) == ["file"]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_a_path_may_be_longer_than_any_system_call_takes(place: Place) -> None:
    if "long paths" in place.limits:
        with pytest.raises(OSError, match=r"too long|out of range"):
            make_long_path(place.path)
        return
    make_long_path(place.path)
