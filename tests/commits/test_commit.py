"""Commits: changes become a layer, or stay where they are."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from fimd.base.errors import AccessDeniedError, BusyError, FimError
from fimd.commits.commit import Committed, commit
from fimd.commits.lock import exclusive
from fimd.commits.request import held_commit
from fimd.commits.work import Work
from fimd.dwarfs.reader import Image
from fimd.layers.place import LayerPlace
from tests.commits.commits import CONTENT, content_of, fill, opened, request, run


@pytest.mark.parametrize("mode", ["binary", "layer", "file"])
def test_a_commit_moves_the_changes_into_a_layer(
    mode: str, data: Path, image: Path, tmp_path: Path
) -> None:
    fill(data)
    (data / "root").chmod(0o711)
    target = tmp_path / "my\nown.layer"
    made = run(data, request(image, mode, str(target)))
    assert made is not None
    with Image.open(made.path, made.offset, made.size) as layer:
        assert layer.created is not None
    expected = {"binary": str(image), "layer": f"{data}/layers/layer-000.layer", "file": target}
    assert made.path == str(expected[mode])
    assert list((data / "root").iterdir()) == []
    assert (data / "root").stat().st_mode & 0o7777 == 0o711
    assert list((data / "tmp").iterdir()) == []
    assert content_of([LayerPlace(made.path, made.offset, made.size)]) == CONTENT


def test_an_empty_upper_makes_no_layer(data: Path, image: Path) -> None:
    before = image.read_bytes()
    assert run(data, request(image, "binary")) is None
    assert image.read_bytes() == before


@pytest.mark.parametrize("is_empty", [False, True])
def test_the_data_directory_is_free_as_soon_as_a_commit_says_that_it_is_done(
    is_empty: bool, data: Path, image: Path
) -> None:
    if not is_empty:
        fill(data)
    freed: list[bool] = []

    with opened(data) as directory, held_commit(request(image, "layer"), directory) as held:

        def done(made: Committed | None) -> None:
            with exclusive(directory):
                freed.append((made is None) == is_empty)

        commit(held, Work(), done)
    assert freed == [True]


def test_managed_layers_are_numbered_above_the_highest_up_to_999(data: Path, image: Path) -> None:
    for name in ("layer-007.layer", "layer-0999.layer", "other"):
        (data / "layers" / name).write_bytes(b"")
    fill(data)
    made = run(data, request(image, "layer"))
    assert made is not None
    assert made.number == 8
    (data / "layers" / "layer-999.layer").write_bytes(b"")
    fill(data)
    with pytest.raises(FimError, match="Maximum number of layers exceeded"):
        run(data, request(image, "layer"))
    assert (data / "root" / "a").exists()


def test_a_file_that_exists_is_not_replaced(data: Path, image: Path, tmp_path: Path) -> None:
    fill(data)
    target = tmp_path / "taken"
    target.symlink_to("nowhere")
    with pytest.raises(FimError, match="Destination file already exists"):
        run(data, request(image, "file", str(target)))
    assert (data / "root" / "a").exists()


def test_a_destination_that_appears_meanwhile_is_not_replaced(
    data: Path, image: Path, tmp_path: Path
) -> None:
    fill(data)
    target = tmp_path / "taken"

    def appear(phase: str, _done: int, _total: int) -> None:
        if phase == "verify":
            target.write_text("mine")

    with pytest.raises(FimError, match="Destination file already exists"):
        run(data, request(image, "file", str(target)), Work(progress=appear))
    assert target.read_text() == "mine"
    assert (data / "root" / "a").exists()


def test_a_commit_to_another_filesystem_works(data: Path, image: Path) -> None:
    if os.stat("/dev/shm").st_dev == data.stat().st_dev:
        pytest.skip("there is no second filesystem")
    target = Path("/dev/shm") / f"fimd-test-{os.getpid()}.layer"
    fill(data)
    try:
        made = run(data, request(image, "file", str(target)))
        assert made is not None
        assert content_of([LayerPlace(made.path, 0, made.size)]) == CONTENT
    finally:
        target.unlink(missing_ok=True)


def test_two_commits_exclude_each_other(data: Path, image: Path) -> None:
    fill(data)
    with (
        opened(data) as directory,
        exclusive(directory),
        pytest.raises(BusyError, match="another process"),
    ):
        run(data, request(image, "layer"))


def test_where_directories_cannot_be_locked_a_file_is(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def only_files(descriptor: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", only_files)
    with opened(data) as directory:
        held = exclusive(directory)
        with held, pytest.raises(BusyError, match="another process"), exclusive(directory):
            pytest.fail("two had the lock")
    with opened(data) as directory, exclusive(directory):
        assert (data / "tmp" / "fimd.lock").exists()


def test_a_directory_that_cannot_be_written_is_an_error_with_a_way_out(
    data: Path, image: Path, tmp_path: Path
) -> None:
    fill(data)
    with pytest.raises(AccessDeniedError, match="choose another"):
        run(data, request(image, "file", str(tmp_path / "missing" / "x")))


def test_attributes_that_a_layer_cannot_hold_are_told(data: Path, image: Path) -> None:
    fill(data)
    try:
        os.setxattr(data / "root" / "a", "user.mine", b"x")
    except OSError:
        pytest.skip("this filesystem has no user attributes")
    notes: list[str] = []
    run(data, request(image, "layer"), Work(note=notes.append))
    assert any("user.mine" in note for note in notes)
