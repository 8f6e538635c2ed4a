import gzip
import io
import lzma
import os
import random
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fimd.base.removal import remove_tree
from fimd.flatimage import rootfs as source_of
from fimd.flatimage.errors import CancelledError, ImageError, RootfsError
from fimd.flatimage.rootfs import unpack

open_rootfs = partial(source_of.open_rootfs, remove=remove_tree)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make device nodes")


def member(name: str, kind: bytes = tarfile.REGTYPE, **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_000_000_000
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


Entry = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def archive(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


SAMPLE = (
    member("./", tarfile.DIRTYPE, mode=0o750),
    member("./etc", tarfile.DIRTYPE, mode=0o555),
    (member("./etc/os-release"), b"NAME=x\n"),
    (member("./bin/su", mode=0o4755), b"#!"),
    member("./bin/sh", tarfile.SYMTYPE, linkname="/bin/su"),
    member("./bin/other", tarfile.LNKTYPE, linkname="./bin/su"),
    member("./run/pipe", tarfile.FIFOTYPE),
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(data: bytes) -> Path:
        path = tmp_path / "rootfs.tar"
        path.write_bytes(data)
        return path

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    with open_rootfs(tmp_path) as rootfs:
        assert (rootfs.path, rootfs.notes) == (tmp_path, ())


@pytest.mark.parametrize(
    "compress",
    [
        lambda data: data,
        gzip.compress,
        lzma.compress,
        lambda data: lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]),
        zstandard.compress,
        lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
        lambda data: b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(data),
    ],
    ids=["plain", "gzip", "xz", "two xz", "zstd", "two zstd", "pzstd"],
)
def test_an_archive_is_told_by_its_content_and_unpacked(
    write: Callable[[bytes], Path], tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = write(compress(archive(*SAMPLE)))
    told: list[tuple[int, int]] = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_rootfs(path, scratch=scratch, progress=lambda *n: told.append(n)) as rootfs:
        root = rootfs.path
        assert rootfs.notes == ()
        assert (root / "etc/os-release").read_bytes() == b"NAME=x\n"
        assert (root / "etc").stat().st_mtime == 1_000_000_000
        assert os.readlink(root / "bin/sh") == "/bin/su"
        assert (root / "bin/other").samefile(root / "bin/su")
        assert stat.S_ISFIFO((root / "run/pipe").stat().st_mode)
        modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("", "bin/su", "run")}
        assert modes == {"": 0o750, "bin/su": 0o4755, "run": 0o755}
    assert list(scratch.iterdir()) == []
    assert told[-1][1] == path.stat().st_size


@pytest.mark.parametrize("option", ["", "z", "J", "--zstd"])
def test_what_gnu_tar_packs_comes_back_the_same(tmp_path: Path, target: Path, option: str) -> None:
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_bytes(random.Random(1).randbytes(300_000))
    (source / ("long" * 50)).write_text("long name")
    (source / os.fsdecode(b"not \xff utf-8\nnewline")).write_text("x")
    with (source / "sparse").open("wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"middle")
    os.link(source / "sparse", source / "sparse too")
    os.symlink("/nowhere", source / "link")
    os.utime(source / "deep", ns=(5, 1_234_567_890_123_456_789))
    packed = tmp_path / "packed"
    options = [] if not option else [option if option.startswith("-") else f"-{option}"]
    command = ["tar", "-C", str(source), "-S", "--format=pax", *options, "-cf", str(packed), "."]
    subprocess.run(command, check=True, timeout=60)
    assert unpack(packed, target) == ()
    subprocess.run(["diff", "-r", "--no-dereference", source, target], check=True, timeout=60)
    assert (target / "deep").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (target / "sparse").stat().st_blocks * 512 < 10_000_000
    assert (target / "sparse").stat().st_nlink == 2


def test_a_large_file_comes_back_the_same(write: Callable[[bytes], Path], target: Path) -> None:
    content = random.Random(1).randbytes((5 << 20) + 7)
    assert unpack(write(archive((member("large"), content))), target) == ()
    assert (target / "large").read_bytes() == content


def test_a_hole_of_many_terabytes_is_passed_over(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(8 << 40)
        file.seek(4 << 40)
        file.write(b"middle")
    packed = tmp_path / "packed"
    subprocess.run(["tar", "-C", source, "-S", "-cf", packed, "sparse"], check=True, timeout=60)
    began = time.thread_time()
    assert unpack(packed, target) == ()
    assert time.thread_time() - began < 1
    assert (target / "sparse").stat().st_size == 8 << 40
    with (target / "sparse").open("rb") as file:
        file.seek(4 << 40)
        assert file.read(7) == b"middle\0"


@needs_root
def test_root_keeps_owners_and_makes_devices(write: Callable[[bytes], Path], target: Path) -> None:
    path = write(
        archive(
            (member("file", uid=1234, gid=4321, mode=0o4711), b"x"),
            member("link", tarfile.SYMTYPE, linkname="file", uid=7, gid=8),
            member("folder", tarfile.DIRTYPE, uid=5, gid=6, mode=0o2751),
            member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        )
    )
    notes = unpack(path, target)
    if notes:
        pytest.skip(f"devices are not allowed here: {notes}")
    found = (target / "file").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o4711)
    found = (target / "link").lstat()
    assert (found.st_uid, found.st_gid) == (7, 8)
    found = (target / "folder").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (5, 6, 0o2751)
    assert (target / "dev/null").stat().st_rdev == os.makedev(1, 3)


@needs_root
def test_a_plain_user_is_told_what_was_left_out(tmp_path: Path, open_directory: Path) -> None:
    scratch = open_directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    path = tmp_path / "rootfs.tar"
    path.write_bytes(
        archive(
            member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            (member("etc/shadow", mode=0, uid=0, gid=42), b"secret"),
            member("closed", tarfile.DIRTYPE, mode=0o500),
            (member("closed/file"), b"x"),
        )
    )
    result = tmp_path / "result"
    with path.open("rb") as file, result.open("w") as out:
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                source = f"/proc/self/fd/{file.fileno()}"
                with open_rootfs(source, scratch=scratch) as rootfs:
                    out.write((rootfs.path / "etc/shadow").read_text())
                    out.write((rootfs.path / "closed/file").read_text())
                    out.write("\n" + "\n".join(rootfs.notes))
                out.write(f"\nleft: {os.listdir(scratch)}")
            except Exception as error:  # noqa: BLE001 - the parent shows it
                out.write(repr(error))
            finally:
                out.flush()
                os._exit(0)
        os.waitpid(pid, 0)
    assert result.read_text().splitlines() == [
        "secretx",
        "device nodes left out, which only root can make: 1",
        "entries made readable to their owner: 1",
        "left: []",
    ]


@pytest.mark.parametrize(
    "entries",
    [
        [(member("../outside"), b"x")],
        [(member("a/../../outside"), b"x")],
        [
            member("a", tarfile.SYMTYPE, linkname=".."),
            (member("a/outside"), b"x"),
        ],
        [
            member("a", tarfile.SYMTYPE, linkname="/"),
            (member("a/tmp/outside"), b"x"),
        ],
        [
            member("d", tarfile.DIRTYPE),
            member("d/up", tarfile.SYMTYPE, linkname="../.."),
            (member("d/up/outside"), b"x"),
        ],
        [member("a", tarfile.LNKTYPE, linkname="../secret")],
        [
            member("up", tarfile.SYMTYPE, linkname=".."),
            member("a", tarfile.LNKTYPE, linkname="up/secret"),
        ],
        [member("a", tarfile.LNKTYPE, linkname="missing")],
        [member("a", tarfile.LNKTYPE, linkname=".")],
        [(member("file"), b"x"), (member("file/below"), b"x")],
        [member("x/" * 600, tarfile.DIRTYPE)],
        [(member("n" * 5000), b"x")],
        [(member("n" * 300), b"x")],
        [(member("."), b"x")],
        [(member("full/file"), b"x"), (member("full"), b"x")],
    ],
)
def test_an_archive_cannot_leave_its_directory(
    write: Callable[[bytes], Path], tmp_path: Path, target: Path, entries: list[Entry]
) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(RootfsError, match=r".+"):
        unpack(write(archive(*entries)), target)
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "target", "rootfs.tar"}
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_a_file_may_follow_where_a_link_was(write: Callable[[bytes], Path], target: Path) -> None:
    (target.parent / "victim").write_text("untouched")
    unpack(
        write(
            archive(
                member("a", tarfile.SYMTYPE, linkname="../victim"),
                (member("a"), b"new"),
                member("b", tarfile.DIRTYPE),
                member("b", tarfile.SYMTYPE, linkname=".."),
                (member("c"), b"1"),
                (member("c"), b"2"),
            )
        ),
        target,
    )
    assert (target.parent / "victim").read_text() == "untouched"
    assert (target / "a").read_text() == "new"
    assert (target / "c").read_text() == "2"
    assert os.readlink(target / "b") == ".."


def test_absolute_names_are_taken_below_the_root(
    write: Callable[[bytes], Path], target: Path
) -> None:
    unpack(write(archive((member("/etc/motd"), b"hello"))), target)
    assert (target / "etc/motd").read_text() == "hello"


GOOD = archive(*SAMPLE, (member("big"), b"content" * 5000))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all" * 100,
        bytes(100),
        GOOD[:600],
        GOOD[:10_000],
        GOOD[: len(GOOD) - 20_000],
        gzip.compress(GOOD)[:-200],
        gzip.compress(GOOD)[:-1],
        lzma.compress(GOOD)[:-30],
        zstandard.compress(GOOD)[:-40],
        b"\xfd7zXZ\0garbage" * 10,
        b"\x28\xb5\x2f\xfdgarbage" * 10,
        b"\x1f\x8bgarbage" * 10,
    ],
)
def test_a_damaged_archive_is_an_error_with_its_name(
    write: Callable[[bytes], Path], tmp_path: Path, data: bytes
) -> None:
    path = write(data)
    with pytest.raises(RootfsError, match=r"rootfs\.tar"), open_rootfs(path, scratch=tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [path]


LONG_NAMES = (member("n" * 150, tarfile.DIRTYPE), (member("n" * 150 + "/" + "f" * 150), b"x" * 600))
DAMAGES = {
    "a bit": lambda header: bytes([header[0] ^ 1]) + header[1:],
    "noise": lambda header: random.Random(1).randbytes(len(header)),
    "zeros": lambda header: bytes(len(header)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_no_damaged_header_is_taken_for_the_archives_end(
    write: Callable[[bytes], Path], tmp_path: Path, form: int, damage: Callable[[bytes], bytes]
) -> None:
    good = archive(*SAMPLE, *LONG_NAMES, (member("last"), b"y" * 600), form=form)
    headers = [at for at in range(0, len(good), 512) if good[at + 257 : at + 262] == b"ustar"]
    assert len(headers) > len(SAMPLE) + len(LONG_NAMES) + 1
    for at in headers:
        path = write(good[:at] + damage(good[at : at + 512]) + good[at + 512 :])
        with pytest.raises(RootfsError, match=r"rootfs\.tar"), open_rootfs(path, scratch=tmp_path):
            pass


def test_no_archive_that_is_cut_off_is_taken_for_a_whole_one(
    write: Callable[[bytes], Path], tmp_path: Path
) -> None:
    good = archive(*SAMPLE, *LONG_NAMES)
    end = len(good.rstrip(b"\0")) // 512 * 512 + 512
    with open_rootfs(write(good[: end + 512]), scratch=tmp_path) as rootfs:
        assert (rootfs.path / "etc/os-release").is_file()
    for size in range(0, end + 512, 256):
        with pytest.raises(RootfsError), open_rootfs(write(good[:size]), scratch=tmp_path):
            pass


def test_what_follows_an_archives_end_is_an_error(
    write: Callable[[bytes], Path], target: Path
) -> None:
    with pytest.raises(RootfsError, match="more follows after its end"):
        unpack(write(archive(*SAMPLE) + archive(*SAMPLE)), target)


def test_a_checksum_that_does_not_match_is_an_error(
    write: Callable[[bytes], Path], target: Path
) -> None:
    data = bytearray(gzip.compress(GOOD))
    data[-6] ^= 1
    with pytest.raises(RootfsError, match="damaged"):
        unpack(write(bytes(data)), target)


def test_a_bomb_in_a_header_takes_no_memory(write: Callable[[bytes], Path], target: Path) -> None:
    header = member("x", tarfile.XHDTYPE)
    header.size = 1 << 40
    data = zstandard.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(100 << 20))
    started = time.monotonic()
    with pytest.raises(RootfsError, match="a header claims more than"):
        unpack(write(data), target)
    assert time.monotonic() - started < 2


def test_cancelling_removes_what_was_unpacked(
    write: Callable[[bytes], Path], tmp_path: Path
) -> None:
    answers = iter([False, False, False, True])
    path = write(archive(*SAMPLE))
    with (
        pytest.raises(CancelledError),
        open_rootfs(path, scratch=tmp_path, cancelled=lambda: next(answers)),
    ):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_other_things_than_directories_and_archives_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for source, reason in (("fifo", "neither a directory nor"), ("missing", "No such file")):
        with pytest.raises(ImageError, match=reason), open_rootfs(tmp_path / source):
            pass


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    changes=st.lists(
        st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6
    ),
    fix=st.booleans(),
)
def test_no_archive_gives_another_error(
    tmp_path_factory: pytest.TempPathFactory,
    form: int,
    changes: list[tuple[int, bytes]],
    fix: bool,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    entries = (
        (member("n" * 150), b"y" * 700),
        (member("file", pax_headers={"mtime": "12.5", "GNU.sparse.major": "1"}), b"z"),
        *SAMPLE,
    )
    data = bytearray(archive(*entries, form=form))
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    if fix:  # so that what is behind the headers' checksums is reached
        for block in range(0, len(data) - 512, 512):
            if data[block + 257 : block + 262] == b"ustar":
                data[block + 148 : block + 156] = b" " * 8
                total = sum(data[block : block + 512])
                data[block + 148 : block + 156] = b"%06o\0 " % total
    (folder / "tar").write_bytes(data)
    with suppress(RootfsError), open_rootfs(folder / "tar", scratch=folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["tar"]
