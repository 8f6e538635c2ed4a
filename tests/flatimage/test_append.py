import errno
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fimd.flatimage.append import Appended, append_layer, remove_last_layer, settle
from fimd.flatimage.chain import EmbeddedLayer, read_chain
from fimd.flatimage.errors import (
    BusyImageError,
    CancelledError,
    DamagedImageError,
    ImageError,
    NoSpaceError,
    NotALayerError,
    ReadOnlyImageError,
)
from fimd.flatimage.file import exclusive, open_image
from fimd.flatimage.layout import find_layout

if TYPE_CHECKING:
    from tests.flatimage.conftest import Build

Dwarfs = Callable[..., bytes]


def layers_of(path: Path) -> list[tuple[int, int]]:
    with open_image(path) as fd:
        chain = read_chain(fd, find_layout(fd))
    assert (chain.faults, chain.torn_offset) == ((), None)
    return [(layer.offset, layer.size) for layer in chain.layers]


def writable(path: Path) -> AbstractContextManager[int]:
    return open_image(path, writable=True)


@pytest.fixture
def layer(tmp_path: Path, make_dwarfs: Dwarfs) -> Path:
    path = tmp_path / "new.layer"
    path.write_bytes(make_dwarfs(b"new" * 10_000_000))
    return path


def append(image: Path, layer: Path, **calls: Any) -> Appended:
    with writable(image) as fd, open_image(layer) as source:
        return append_layer(fd, source, **calls)


def append_and_die(image: Path, layer: Path, **calls: Any) -> None:
    """Append in a process that one of the calls kills."""
    work = partial(append, image, layer, **calls)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["script", "elf-v2", "elf-v1"])
def test_an_appended_layer_is_the_topmost_and_nothing_else_changes(
    build: "Build", layer: Path, kind: str
) -> None:
    sample = build(kind)
    sample.path.chmod(0o751)
    before = sample.path.read_bytes()
    done = append(sample.path, layer)
    size = layer.stat().st_size
    assert layers_of(sample.path) == [*sample.layers, (len(before) + 8, size)]
    assert (done.layer, done.cut_bytes) == (EmbeddedLayer(len(before) + 8, size), 0)
    after = sample.path.read_bytes()
    assert after == before + size.to_bytes(8, "little") + layer.read_bytes()
    assert stat.S_IMODE(sample.path.stat().st_mode) == 0o751


def test_a_part_of_a_file_can_be_appended(build: "Build", make_dwarfs: Dwarfs) -> None:
    source, target = build("elf-v2", [make_dwarfs(b"1"), make_dwarfs(b"two")]), build("script")
    offset, size = source.layers[1]
    with writable(target.path) as fd, open_image(source.path) as other:
        append_layer(fd, other, size, source_offset=offset)
    assert target.path.read_bytes().endswith(make_dwarfs(b"two"))


def test_progress_is_told_up_to_the_end(build: "Build", layer: Path) -> None:
    told: list[tuple[int, int]] = []
    with writable(build("script").path) as fd, open_image(layer) as source:
        append_layer(fd, source, progress=lambda done, total: told.append((done, total)))
    assert len(told) > 1
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)


def test_between_two_file_systems_bytes_are_copied_all_the_same(
    build: "Build", layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    sample = build("script")
    append(sample.path, layer)
    assert sample.path.read_bytes().endswith(layer.read_bytes())


@pytest.mark.parametrize("content", [b"", b"DWARFS", b"DWARFS\x02\x05" + bytes(1000)])
def test_what_is_no_layer_is_not_appended(build: "Build", tmp_path: Path, content: bytes) -> None:
    sample = build("script")
    (tmp_path / "bad.layer").write_bytes(content)
    size = sample.size
    with pytest.raises(NotALayerError, match=r"bad\.layer"):
        append(sample.path, tmp_path / "bad.layer")
    assert sample.size == size


def test_a_truncated_layer_is_not_appended(build: "Build", layer: Path) -> None:
    os.truncate(layer, layer.stat().st_size - 1)
    with pytest.raises(NotALayerError):
        append(build("script").path, layer)


def test_cancelling_leaves_the_image_as_it_was(build: "Build", layer: Path) -> None:
    sample = build("script")
    before = sample.path.read_bytes()
    answers = iter([False, True])
    with (
        writable(sample.path) as fd,
        open_image(layer) as source,
        pytest.raises(CancelledError),
    ):
        append_layer(fd, source, cancelled=lambda: next(answers))
    assert sample.path.read_bytes() == before


def test_a_layer_that_fails_verification_is_not_published(build: "Build", layer: Path) -> None:
    sample = build("script")
    before = sample.path.read_bytes()
    seen = []

    def verify(appended: EmbeddedLayer) -> None:
        seen.append(sample.path.read_bytes()[appended.offset : appended.end])
        raise ValueError("not good")

    with (
        writable(sample.path) as fd,
        open_image(layer) as source,
        pytest.raises(ValueError, match="not good"),
    ):
        append_layer(fd, source, verify=verify)
    assert seen == [layer.read_bytes()]
    assert sample.path.read_bytes() == before


@pytest.mark.parametrize("step", ["payload", "header", "published"])
def test_killed_at_any_step_the_image_keeps_its_layers_and_takes_the_next(
    build: "Build", layer: Path, step: str
) -> None:
    sample = build("elf-v2")

    def die(done: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    append_and_die(sample.path, layer, after=die)

    first = (sample.layers[-1][0] + sample.layers[-1][1] + 8, layer.stat().st_size)
    with open_image(sample.path) as fd:
        chain = read_chain(fd, find_layout(fd))
    expected = [*sample.layers, first] if step == "published" else sample.layers
    assert [(one.offset, one.size) for one in chain.layers] == expected
    assert (chain.torn_offset is not None) == (step == "payload")

    done = append(sample.path, layer)
    second = (done.layer.offset, done.layer.size)
    assert (done.recovered is not None) == (step == "header")
    assert (done.cut_bytes > 0) == (step == "payload")
    kept = [] if step == "payload" else [first]
    assert layers_of(sample.path) == [*sample.layers, *kept, second]


def test_a_torn_tail_is_cut_off_and_replaced(build: "Build", layer: Path) -> None:
    sample = build("elf-v2")
    size = sample.size
    sample.add(bytes(8) + b"junk" * 999)
    assert append(sample.path, layer).cut_bytes == 8 + 4 * 999
    assert layers_of(sample.path)[-1][0] == size + 8


def test_settling_finishes_or_cuts_off_what_was_left(build: "Build", make_dwarfs: Dwarfs) -> None:
    sample = build("script")
    sample.add(bytes(8) + make_dwarfs(b"complete"))
    with writable(sample.path) as fd:
        assert len(settle(fd).layers) == 2
    size = sample.size
    sample.add(bytes(100))
    with writable(sample.path) as fd:
        assert len(settle(fd).layers) == 2
    assert sample.size == size


def test_killed_while_copying_the_image_keeps_its_layers(build: "Build", layer: Path) -> None:
    sample = build("script")

    def die(_done: int, _total: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    append_and_die(sample.path, layer, progress=die)
    with open_image(sample.path) as fd:
        chain = read_chain(fd, find_layout(fd))
    assert chain.torn_offset == sample.layers[-1][0] + sample.layers[-1][1] < chain.end
    append(sample.path, layer)
    assert len(layers_of(sample.path)) == 2


def test_unknown_bytes_at_the_end_are_never_cut_off(build: "Build", layer: Path) -> None:
    sample = build("script")
    sample.add(b"a signature of somebody's")
    before = sample.path.read_bytes()
    with pytest.raises(DamagedImageError, match="truncate -s"):
        append(sample.path, layer)
    assert sample.path.read_bytes() == before


def test_a_damaged_topmost_layer_is_never_cut_off(build: "Build", layer: Path) -> None:
    sample = build("script", [layer.read_bytes(), layer.read_bytes()])
    sample.patch(sample.layers[1][0], b"\xff" * 200)
    before = sample.path.read_bytes()
    with pytest.raises(DamagedImageError, match="truncate -s"):
        append(sample.path, layer)
    assert sample.path.read_bytes() == before


def test_above_a_fault_in_the_middle_layers_can_be_added(
    build: "Build", layer: Path, make_dwarfs: Dwarfs
) -> None:
    sample = build("elf-v2", [make_dwarfs(b"1"), make_dwarfs(b"2"), make_dwarfs(b"3")])
    sample.patch(sample.layers[1][0] - 8, b"\xff" * 72)
    append(sample.path, layer)
    with open_image(sample.path) as fd:
        assert len(read_chain(fd, find_layout(fd)).layers) == 3


def test_only_one_appends_at_a_time(build: "Build", layer: Path) -> None:
    sample = build("script")
    with (
        writable(sample.path) as holder,
        exclusive(holder),
        pytest.raises(BusyImageError, match="another process is changing"),
    ):
        append(sample.path, layer)
    append(sample.path, layer)


def test_the_lock_dies_with_its_holder(build: "Build", layer: Path, tmp_path: Path) -> None:
    sample = build("script")

    def hold() -> None:
        with writable(sample.path) as fd, exclusive(fd):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = multiprocessing.get_context("fork").Process(target=hold)
    child.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    child.kill()
    with writable(sample.path) as fd, open_image(layer) as source:
        append_layer(fd, source, wait=10)
    child.join()


def test_an_image_replaced_meanwhile_is_not_written(build: "Build", layer: Path) -> None:
    sample = build("script")
    with writable(sample.path) as fd, open_image(layer) as source:
        sample.path.unlink()
        with pytest.raises(BusyImageError, match="replaced"):
            append_layer(fd, source)


def test_the_topmost_layer_can_be_removed_but_not_the_base(build: "Build", layer: Path) -> None:
    sample = build("elf-v2")
    before = sample.path.read_bytes()
    done = append(sample.path, layer)
    with writable(sample.path) as fd:
        with pytest.raises(ImageError, match="not the topmost"):
            remove_last_layer(fd, EmbeddedLayer(*sample.layers[0]))
        remove_last_layer(fd, done.layer)
        assert sample.path.read_bytes() == before
        with pytest.raises(ImageError, match="base layer only"):
            remove_last_layer(fd, EmbeddedLayer(*sample.layers[0]))
    assert sample.path.read_bytes() == before


def test_an_image_open_for_reading_is_not_written(build: "Build", layer: Path) -> None:
    with (
        open_image(build("script").path) as fd,
        open_image(layer) as source,
        pytest.raises(ReadOnlyImageError),
    ):
        append_layer(fd, source)


def test_a_running_program_is_not_written(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            with pytest.raises(ReadOnlyImageError, match="busy"), writable(program):
                pass
        finally:
            process.kill()


def test_a_full_disk_leaves_the_image_as_it_was(
    build: "Build", layer: Path, small_disk: Path
) -> None:
    image = small_disk / "image"
    shutil.copy(build("script").path, image)
    before = image.read_bytes()
    with pytest.raises(NoSpaceError, match="no space left"):
        append(image, layer)
    assert image.read_bytes() == before
