"""A directory becomes entries, and nothing that changes meanwhile is packed unnoticed."""

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fimd.dwarfs import Image
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.write import PackError, Progress, SourceTree, create
from tests.dwarfs.write.trees import found

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def open_source() -> Iterator[Path]:
    """A directory that another user can read."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


def entries(source: Path, **how: object) -> dict[bytes, object]:
    with SourceTree(source) as tree:
        return {entry.path: entry for entry in tree.scan(**how)}  # type: ignore[arg-type]


def test_every_attribute_of_a_real_directory_is_kept(source: Path, tmp_path: Path) -> None:
    (source / "d").mkdir(0o1711)
    (source / "d" / "file").write_bytes(b"content")
    (source / "d" / "file").chmod(0o4751)
    (source / "d" / "again").hardlink_to(source / "d" / "file")
    (source / "link").symlink_to("d/file")
    os.mkfifo(source / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
    os.mkfifo(os.fsencode(source) + b"/\xff\n\\odd")
    for changed in (source / "d", source / "d" / "file", source):
        os.utime(changed, (1, 1_600_000_000))
    create(source, tmp_path / "image")
    image = found(tmp_path / "image")
    for path, (mode, uid, gid, mtime_ns, *_) in image.items():
        real = os.lstat(os.path.join(os.fsencode(source), path))
        assert (mode, uid, gid) == (real.st_mode, real.st_uid, real.st_gid)
        assert mtime_ns == real.st_mtime_ns // 10**9 * 10**9
    assert set(image) == {
        b"",
        b"d",
        b"d/file",
        b"d/again",
        b"link",
        b"fifo",
        b"socket",
        b"\xff\n\\odd",
    }
    assert image[b"d/file"][4] == 2
    assert image[b"link"][6] == b"d/file"


@root_only
def test_devices_and_owners_are_kept(source: Path, tmp_path: Path) -> None:
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "deleted", stat.S_IFCHR, 0)
    os.chown(source / "null", 1234, 5678)
    create(source, tmp_path / "image")
    image = found(tmp_path / "image")
    assert image[b"null"][0] == stat.S_IFCHR | (source / "null").stat().st_mode & 0o7777
    assert image[b"null"][1:3] == (1234, 5678)
    assert image[b"null"][5] == os.makedev(1, 3)
    assert image[b"deleted"][5] == 0


def test_deletions_are_added_without_being_in_the_source(source: Path, tmp_path: Path) -> None:
    (source / "d").mkdir()
    os.utime(source / "d", (5, 5))
    create(source, tmp_path / "image", whiteouts=[b"d/gone", b"gone"])
    image = found(tmp_path / "image")
    assert image[b"d/gone"][0] == stat.S_IFCHR
    assert image[b"d/gone"][3] == 5 * 10**9
    assert set(image) == {b"", b"d", b"d/gone", b"gone"}
    with pytest.raises(PackError, match=r"no/where: a deletion needs the directory"):
        create(source, tmp_path / "image", whiteouts=[b"no/where"])


def test_owner_and_group_can_be_set_for_all(source: Path, tmp_path: Path) -> None:
    (source / "f").touch()
    create(source, tmp_path / "image", uid=7, gid=8, whiteouts=[b"gone"])
    assert {facts[1:3] for facts in found(tmp_path / "image").values()} == {(7, 8)}


def test_an_input_list_takes_its_paths_and_their_directories_only(source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True)
    for name in ("a/b/file", "a/b/other", "a/more", "top"):
        (source / name).touch()
    assert set(entries(source, only=[b"a/b/file", b"./a//more", b"a"])) == {
        b"",
        b"a",
        b"a/b",
        b"a/b/file",
        b"a/more",
    }
    with pytest.raises(PackError, match=r"missing: .*vanished"):
        entries(source, only=[b"missing"])
    with pytest.raises(PackError, match="leads out"):
        entries(source, only=[b"a/../../etc/passwd"])


def test_an_input_list_does_not_lead_through_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (source / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(PackError, match="link/secret: lies in what is no directory"):
        create(source, tmp_path / "image", entries=[b"link/secret"])


@pytest.mark.parametrize("only", [None, [b"a/file", b"keep"]])
def test_what_is_refused_is_left_out_with_all_it_holds(
    source: Path, only: list[bytes] | None
) -> None:
    (source / "a").mkdir()
    (source / "a" / "file").touch()
    (source / "keep").touch()
    kept = entries(source, only=only, keep=lambda entry: entry.path != b"a")
    assert set(kept) == {b"", b"keep"}


def test_the_image_itself_is_not_packed(source: Path) -> None:
    (source / "file").touch()
    image = source / "image.dwarfs"
    for _ in range(2):
        create(source, image)
        assert set(found(image)) == {b"", b"file"}
    assert sorted(path.name for path in source.iterdir()) == ["file", "image.dwarfs"]


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (grow, "changed"),
        (lambda path: os.truncate(path, 3), "changed"),
        (replace, "changed"),
        (Path.unlink, "vanished"),
        (lambda path: path.rename(path.with_name("x")) and path.symlink_to("x"), "cannot be read"),
    ],
    ids=["grows", "is cut", "is replaced", "vanishes", "becomes a link"],
)
@pytest.mark.parametrize("phase", ["survey", "pack"])
def test_a_file_that_changes_meanwhile_is_an_error_that_names_it(
    source: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    message: str,
    phase: str,
) -> None:
    victim = source / "victim"
    victim.write_bytes(b"v" * 100_000)
    done: list[bool] = []

    def progress(state: Progress) -> None:
        if state.phase == phase and not done:
            done.append(True)
            change(victim)

    with pytest.raises(PackError, match=f"victim: .*{message}"):
        create(source, tmp_path / "image", progress=progress)
    assert not (tmp_path / "image").exists()
    assert list(tmp_path.glob(".image*")) == []


@root_only
def test_what_may_not_be_read_is_an_error_or_reported(open_source: Path, tmp_path: Path) -> None:
    (open_source / "secret").write_bytes(b"x")
    (open_source / "secret").chmod(0o600)
    (open_source / "closed").mkdir(0o700)
    (open_source / "closed" / "inside").touch()
    (open_source / "open").write_bytes(b"y")
    skipped: list[tuple[bytes, str]] = []
    with (tmp_path / "image").open("wb", buffering=0) as file:
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PackError, match=r"(secret|closed): .*[Pp]ermission"):
                create(open_source, file.fileno())
            file.seek(0)
            file.truncate()
            create(open_source, file.fileno(), on_skip=lambda *what: skipped.append(what))
        finally:
            os.seteuid(0)
    assert sorted(skipped) == [(b"closed", "permission denied"), (b"secret", "permission denied")]
    assert set(found(tmp_path / "image")) == {b"", b"open"}


def test_a_scan_can_be_cancelled(source: Path) -> None:
    with pytest.raises(CancelledError):
        entries(source, cancelled=lambda: True)


def test_a_source_that_is_no_directory_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot open the source"):
        create(source / "missing", tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_holes_of_a_real_file_are_found(source: Path, tmp_path: Path) -> None:
    with (source / "f").open("wb") as file:
        file.write(b"start")
        file.seek(40 << 20)
        file.write(b"middle")
        file.truncate(80 << 20)
    create(source, tmp_path / "image", level=1, sparse=True)
    with Image.open(tmp_path / "image") as image:
        facts = image.stat(1)
        assert facts.size == 80 << 20
        assert facts.allocated < 1 << 20
        assert bytes(image.read(1, (40 << 20) - 1, 8)) == b"\0middle\0"
        assert bytes(image.read(1, 0, 6)) == b"start\0"
