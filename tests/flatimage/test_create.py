import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fimd.flatimage.chain import read_chain
from fimd.flatimage.create import create_image
from fimd.flatimage.errors import (
    CancelledError,
    ImageError,
    NoSpaceError,
    NotALayerError,
    SettingTooLargeError,
)
from fimd.flatimage.file import open_image
from fimd.flatimage.header import header
from fimd.flatimage.layout import Kind, Layout, find_layout
from fimd.flatimage.reserved import FRESH, Settings, read_settings
from fimd.flatimage.settings import Boot, Icon, Overlay, Permission

MIB = 1 << 20


@pytest.fixture
def layers(tmp_path: Path, make_dwarfs: Callable[..., bytes]) -> list[Path]:
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.layer"
        path.write_bytes(make_dwarfs(bytes([number]) * 9_000_000))
        paths.append(path)
    return paths


def others(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"0.layer", "1.layer", "2.layer"}


def test_an_image_is_header_reserved_space_and_chain(tmp_path: Path, layers: list[Path]) -> None:
    image = tmp_path / "app.flatimage"
    create_image(image, layers)
    with open_image(image) as fd:
        layout = find_layout(fd)
        assert layout == Layout(Kind.SCRIPT, 4096, 4 * MIB)
        chain = read_chain(fd, layout)
        assert read_settings(fd, layout) == FRESH
    data = image.read_bytes()
    assert data.startswith(header())
    assert [data[one.offset : one.end] for one in chain.layers] == [
        path.read_bytes() for path in layers
    ]
    assert (chain.faults, chain.torn_offset, chain.end) == ((), None, len(data))
    assert others(tmp_path) == {"app.flatimage"}


def test_a_fresh_image_stores_nothing_but_the_remote(tmp_path: Path, layers: list[Path]) -> None:
    image = tmp_path / "app.flatimage"
    create_image(image, layers[:1])
    table = image.read_bytes()[4096 : 4096 + 4 * MIB]
    assert table.strip(b"\0") == (
        b'{\n  "url": "https://raw.githubusercontent.com/flatimage/recipes/master"\n}'
    )


def test_settings_are_stored(tmp_path: Path, layers: list[Path]) -> None:
    settings = Settings(
        permissions=Permission.HOME,
        overlay=Overlay.UNIONFS,
        boot=Boot("sh", ("-l",)),
        icon=Icon("png", b"x"),
        environment={"A": "b"},
    )
    image = tmp_path / "app.flatimage"
    create_image(image, layers[:1], settings)
    with open_image(image) as fd:
        assert read_settings(fd, find_layout(fd)) == settings


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0, 0o777)])
def test_the_image_is_executable_as_far_as_the_umask_allows(
    tmp_path: Path, layers: list[Path], umask: int, mode: int
) -> None:
    old = os.umask(umask)
    try:
        create_image(tmp_path / "app", layers[:1])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "app").stat().st_mode) == mode


def test_the_image_starts(tmp_path: Path, layers: list[Path]) -> None:
    image = tmp_path / "my app"
    create_image(image, layers[:1])
    done = subprocess.run(
        [image],
        env={"FIM_MAIN_OFFSET": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == b"4096\n"


def test_progress_runs_over_all_layers(tmp_path: Path, layers: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    create_image(tmp_path / "app", layers, progress=lambda *numbers: told.append(numbers))
    total = sum(path.stat().st_size for path in layers)
    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert {number for _, number in told} == {total}


def test_cancelling_leaves_nothing(tmp_path: Path, layers: list[Path]) -> None:
    answers = iter([False, False, True])
    with pytest.raises(CancelledError):
        create_image(tmp_path / "app", layers, cancelled=lambda: next(answers))
    assert others(tmp_path) == set()


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(
    tmp_path: Path, layers: list[Path]
) -> None:
    image = tmp_path / "app"
    image.write_text("precious")
    with pytest.raises(ImageError, match="exists already"):
        create_image(image, layers[:1])
    assert image.read_text() == "precious"
    create_image(image, layers[:1], replace=True)
    assert image.read_bytes().startswith(header())
    assert others(tmp_path) == {"app"}


def test_a_folder_that_wants_names_for_all_its_files_is_served_too(
    tmp_path: Path, layers: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *rest)

    real = os.open
    monkeypatch.setattr("fimd.flatimage.create.os.open", refuse)
    image = tmp_path / "app"
    create_image(image, layers[:1])
    with pytest.raises(ImageError, match="exists already"):
        create_image(image, layers[:1], progress=lambda *_: None)
    create_image(image, layers[:2], replace=True)
    with open_image(image) as fd:
        assert len(read_chain(fd, find_layout(fd)).layers) == 2
    assert others(tmp_path) == {"app"}


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, layers: list[Path]) -> None:
    image = tmp_path / "app"

    def appear(done: int, total: int) -> None:
        image.write_text(f"precious {done} {total}")

    with pytest.raises(ImageError, match="exists already"):
        create_image(image, layers[:1], progress=appear)
    assert image.read_text().startswith("precious")
    assert others(tmp_path) == {"app"}


def test_what_is_no_layer_is_refused_before_anything_is_made(
    tmp_path: Path, layers: list[Path]
) -> None:
    os.truncate(layers[1], 5000)
    with pytest.raises(NotALayerError, match=r"1\.layer"):
        create_image(tmp_path / "app", layers)
    with pytest.raises(ImageError, match="at least one layer"):
        create_image(tmp_path / "app", [])
    with pytest.raises(ImageError, match=r"missing\.layer"):
        create_image(tmp_path / "app", [tmp_path / "missing.layer"])
    with pytest.raises(SettingTooLargeError, match="app"):
        create_image(tmp_path / "app", layers[:1], Settings(boot=Boot("x" * 9000)))
    assert others(tmp_path) == set()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, layers: list[Path]) -> None:
    with pytest.raises(ImageError, match=r"no file can be made in .*nowhere"):
        create_image(tmp_path / "nowhere" / "app", layers[:1])


def test_a_full_disk_is_named_and_left_as_it_was(small_disk: Path, layers: list[Path]) -> None:
    with pytest.raises(NoSpaceError, match=r"no space left for .*app:"):
        create_image(small_disk / "app", layers)
    assert list(small_disk.iterdir()) == []


def test_a_long_name_is_no_obstacle(tmp_path: Path, layers: list[Path]) -> None:
    image = tmp_path / ("é" * 127)
    create_image(image, layers[:1])
    assert image.exists()
