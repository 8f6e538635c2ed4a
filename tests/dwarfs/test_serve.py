import errno
import hashlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs import Image
from fimd.dwarfs.write import create

Mount = Callable[..., AbstractContextManager[Path]]
Rows = Callable[[Path], list[tuple[str, ...]]]
pytestmark = pytest.mark.usefixtures("no_mounts_left")

HUGE = 1 << 30
NOBODY = 65534
AS_NOBODY = f"""
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def without_huge_digests(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(*row[:-1], "huge") if row[1] == "f" and int(row[5]) > HUGE else row for row in rows]


def test_the_mounted_tree_is_the_manifest_in_every_column(
    sample: Any, mount: Mount, tree_rows: Rows
) -> None:
    with mount(sample.file, sample.offset, sample.size) as root:
        assert tree_rows(root) == sorted(without_huge_digests(sample.rows()))


def test_a_huge_sparse_file_is_right_where_it_has_data_and_zero_elsewhere(
    images: Path, mount: Mount
) -> None:
    image = images / "made/sparse-S16-packall.dwarfs"
    with Image.open(image) as opened, mount(image) as root:
        path, facts = max(opened.walk(), key=lambda entry: entry[1].size)
        assert facts.size > HUGE
        file = opened.file_map(facts.inode)
        with (root / os.fsdecode(path)).open("rb", buffering=0) as mounted:
            offset = 0
            for extent in file.extents:
                for start in {offset, max(offset, offset + extent.size - 4096)}:
                    mounted.seek(start)
                    assert mounted.read(4096) == bytes(opened.read_map(file, start, 4096))
                offset += extent.size


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["sparse", "sparse-S16-packall", "recomp-sparse-bs"])
def test_a_huge_sparse_file_has_its_digest(images: Path, mount: Mount, name: str) -> None:
    image = images / f"made/{name}.dwarfs"
    rows = (line.split("\t") for line in image.with_suffix(".tsv").read_text().splitlines()[1:])
    path, *_, digest = max((r for r in rows if r[1] == "f"), key=lambda row: int(row[5]))
    with mount(image) as root, (root / path).open("rb", buffering=0) as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest


def test_what_is_not_there_is_not_found_twice(images: Path, mount: Mount) -> None:
    with mount(images / "made/tiny.dwarfs") as root:
        for _ in range(2):
            assert not (root / "nothing").exists()


def test_nothing_can_be_written(images: Path, mount: Mount) -> None:
    with mount(images / "made/tiny.dwarfs") as root:
        for attempt in (
            lambda: (root / "a.txt").write_text("x"),
            (root / "new").touch,
            (root / "a.txt").unlink,
            lambda: (root / "bin").chmod(0),
        ):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EROFS


def test_an_owner_can_be_shown_instead_of_the_images(images: Path, mount: Mount) -> None:
    with mount(images / "made/tiny.dwarfs", uid=1234) as root:
        facts = (root / "a.txt").stat()
        assert (facts.st_uid, facts.st_gid) == (1234, 0)


def test_the_mount_is_named_and_of_its_type(images: Path, mount: Mount) -> None:
    with mount(images / "made/tiny.dwarfs") as root:
        line = next(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(root) in line
        )
        kind, source, options = line.partition(" - ")[2].split(" ")
        assert kind == "fuse.dwarfs"
        assert source.startswith("a,odd\\134")
        assert options.startswith("ro")


def test_statfs_tells_the_size_and_the_number_of_files(images: Path, mount: Mount) -> None:
    with mount(images / "made/tiny.dwarfs") as root:
        facts = os.statvfs(root)
        assert facts.f_files == 6
        assert facts.f_bavail == 0
        assert facts.f_namemax == 255


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts with devices")
def test_root_gets_devices_and_setuid(images: Path, mount: Mount) -> None:
    with mount(images / "made/mix-default.dwarfs") as root:
        assert not os.statvfs(root).f_flag & (os.ST_NODEV | os.ST_NOSUID)
        with (root / "dev_null").open("rb") as device:
            assert device.read() == b""


def test_a_damaged_block_is_an_input_error_and_the_rest_is_served(
    images: Path, mount: Mount
) -> None:
    with mount(images / "damaged/flip-block-xxh.dwarfs") as root:
        files = [path for path in root.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
        assert files
        for path in files:
            with pytest.raises(OSError) as caught:
                path.read_bytes()
            assert caught.value.errno == errno.EIO
        assert os.readlink(next(path for path in root.rglob("*") if path.is_symlink()))


def test_a_name_that_cannot_be_is_an_input_error_for_its_directory(
    images: Path, mount: Mount, mounter: Any
) -> None:
    with mount(images / "damaged/name-.dwarfs") as root:
        errors: list[OSError] = []
        list(os.walk(root, onerror=errors.append))
        assert [error.errno for error in errors] == [errno.EIO]
        assert root.is_dir()
    said = Path(mounter._errors.name).read_text()
    assert re.search(r"readdir: .*/damaged/name-\.dwarfs, section METADATA_V2, offset \d+: ", said)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_plain_user_mounts_without_devices_and_setuid(images: Path, open_directory: Path) -> None:
    point = open_directory / "plain-mount"
    point.mkdir()
    os.chown(point, NOBODY, NOBODY)
    code = (
        """
import asyncio, os, sys
sys.path.insert(0, os.getcwd())
from fimd.dwarfs import Image
from fimd.dwarfs.serve import serve
"""
        + AS_NOBODY
        + """
with Image.open(sys.argv[1]) as image:
    asyncio.run(serve(image, sys.argv[2], fsname="x", cache_bytes=1 << 20,
                      on_ready=lambda: print("ready", flush=True)))
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(images / "made/mix-default.dwarfs"), str(point)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        try:
            line = next(
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if str(point) in line
            )
            assert "nosuid,nodev" in line
            with pytest.raises(PermissionError):  # the user's mount is the user's
                os.listdir(point)
        finally:
            subprocess.run(["umount", point], check=True, timeout=60)
    assert process.returncode == 0


def test_many_readers_of_one_file_all_get_it(images: Path, mount: Mount) -> None:
    digests: set[str] = set()
    with mount(images / "made/repeat300-l7-S20-B32.dwarfs", cache_bytes=8 << 20) as root:
        path = min((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)

        def read() -> None:
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                digests.add(hashlib.file_digest(file, "sha256").hexdigest())

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(digests) == 1


@pytest.mark.parametrize("switch", ["", AS_NOBODY], ids=["own", "plain"])
def test_cancelling_the_service_unmounts(images: Path, open_directory: Path, switch: str) -> None:
    point = open_directory / "cancelled"
    point.mkdir()
    if switch and os.geteuid() == 0:
        os.chown(point, NOBODY, NOBODY)
    code = f"""
import asyncio, os, sys
from fimd.dwarfs import Image
from fimd.dwarfs.serve import serve
{switch}

async def main():
    ready = asyncio.Event()
    with Image.open(sys.argv[1]) as image:
        task = asyncio.create_task(serve(
            image, sys.argv[2], fsname="x", cache_bytes=1 << 20, on_ready=ready.set))
        await ready.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            print("cancelled")

asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(images / "made/tiny.dwarfs"), str(point)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr, done.returncode) == ("cancelled\n", "", 0)
    assert not os.path.ismount(point)
    point.rmdir()


def test_a_plain_users_mount_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    code = f"""
import os, sys
from fimd.dwarfs import fusermount
{AS_NOBODY}
try:
    fusermount.mount(sys.argv[1], ["ro"])
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "missing")],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert "could not mount" in done.stdout
    assert "fusermount3:" in done.stderr


def test_a_mount_that_cannot_be_made_is_an_error(
    images: Path, mounter: Any, tmp_path: Path
) -> None:
    with (
        pytest.raises(AssertionError, match="failed: RuntimeError"),
        mounter(images / "made/tiny.dwarfs", tmp_path / "missing"),
    ):
        pass
    assert mounter._line() == "left 1"


def test_memory_stays_within_the_cache(images: Path, mount: Mount, mounter: Any) -> None:
    image = images / "made/repeat300-l7-S20-B32.dwarfs"
    parent = mounter._process.pid
    with mount(image, cache_bytes=16 << 20) as root:
        worker = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        before = _resident(worker)
        for path in root.rglob("*"):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    hashlib.file_digest(file, "sha256")
        assert _resident(worker) - before < (16 + 24) << 20


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from answering."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_small_file_is_read_without_asking_where_its_block_is_at_hand(
    mount: Mount, mounter: Any, tmp_path: Path
) -> None:
    contents = {f"{size}": random.Random(size).randbytes(size) for size in (1, 4096, 5000, 65536)}
    contents["large"] = random.Random(1).randbytes(1 << 20)
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, content in contents.items():
        (tree / name).write_bytes(content)
    (tree / "first").write_bytes(b"decompresses the block")
    create(tree, tmp_path / "image", level=4)
    parent = mounter._process.pid
    with ThreadPoolExecutor(1) as pool, mount(tmp_path / "image") as root:
        worker = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        (root / "first").read_bytes()
        opened = {name: os.open(root / name, os.O_RDONLY) for name in contents}
        with stopped(worker):
            for name in set(contents) - {"large"}:
                assert os.pread(opened[name], 1 << 17, 0) == contents[name]
            asked = pool.submit(os.pread, opened["large"], 1 << 20, 0)
            assert not wait([asked], timeout=0.2).done
        assert asked.result(10) == contents["large"]
        for name, fd in opened.items():
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, 1 << 20, 0) == contents[name]
            os.close(fd)
        for name, content in contents.items():
            assert (root / name).read_bytes() == content


def test_a_links_target_is_asked_for_once(mount: Mount, mounter: Any, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    targets = {"short": "x", "long": "d/" * 2000, "odd": os.fsdecode(b"\xff\n")}
    for name, target in targets.items():
        (tmp_path / "tree" / name).symlink_to(target)
    create(tmp_path / "tree", tmp_path / "image", level=1)
    parent = mounter._process.pid
    with ThreadPoolExecutor(1) as pool, mount(tmp_path / "image") as root:
        worker = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        assert {name: os.readlink(root / name) for name in targets} == targets
        with stopped(worker):
            again = [pool.submit(os.readlink, root / name) for name in targets]
            assert not wait(again, timeout=60).not_done
        assert [target.result() for target in again] == list(targets.values())


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_reading_does_not_wait_for_blocks_that_others_need(images: Path, mount: Mount) -> None:
    """Attributes are answered while blocks are decompressed."""
    with mount(images / "made/t30-l7.dwarfs") as root:
        files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        thread = threading.Thread(target=lambda: [path.read_bytes() for path in files[::10]])
        thread.start()
        slowest = 0.0
        while thread.is_alive():
            began = time.monotonic()
            (root / f"nothing-{began}").exists()
            slowest = max(slowest, time.monotonic() - began)
        thread.join()
        assert slowest < 1
