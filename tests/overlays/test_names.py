"""Names and directories behave alike on every overlay, whichever layer they come from."""

import os
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fimd.base.system_calls import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.overlays.stacks import Place
from tests.support.files import rename_with


def tree(directory: Path) -> dict[str, str]:
    """Every path below a directory, with the content of files."""
    found = {}
    for parent, directories, files in os.walk(directory):
        base = os.path.relpath(parent, directory)
        found.update({os.path.normpath(f"{base}/{name}"): "/" for name in directories})
        for name in files:
            path = Path(parent, name)
            kind = path.lstat().st_mode
            found[os.path.normpath(f"{base}/{name}")] = (
                path.read_text() if stat.S_ISREG(kind) else oct(stat.S_IFMT(kind))
            )
    return found


# renaming files


@pytest.mark.parametrize("source", ["file", "made"])
@pytest.mark.parametrize("target", ["new", "big", "dir/a", "full/deep/new"])
def test_a_file_is_renamed_to_what_is_there_or_is_not(
    place: Place, source: str, target: str
) -> None:
    if source == "made":
        (place / "made").write_text("lower\n")
    os.rename(place / source, place / target)
    assert not (place / source).exists()
    assert (place / target).read_text() == "lower\n"
    assert source not in os.listdir(place.path)
    assert os.listdir((place / target).parent).count(os.path.basename(target)) == 1


def test_a_file_that_is_replaced_again_and_again_is_always_there(place: Place) -> None:
    script = 'while [ -e "$1/go" ]; do echo new > "$1/made" && mv "$1/made" "$1/file"; done'
    (place / "go").touch()
    missed = 0
    with subprocess.Popen(["sh", "-c", script, "sh", place.path]) as writer:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            try:
                assert (place / "file").read_text() in {"lower\n", "new\n"}
            except FileNotFoundError:
                missed += 1
        (place / "go").unlink()
    assert writer.returncode == 0
    assert bool(missed) == ("replaced files" in place.limits)


def test_a_layers_file_whose_place_another_took_may_be_removed(place: Place) -> None:
    (place / "new").write_text("new")
    os.rename(place / "new", place / "file")
    (place / "file").unlink()
    if "removing replaced files" in place.limits:
        (place / "file").unlink(missing_ok=True)
    assert not (place / "file").exists()
    assert "file" not in os.listdir(place.path)


def test_a_rename_of_what_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        os.rename(place / "nothing", place / "file")
    assert (place / "file").read_text() == "lower\n"


def test_a_file_does_not_replace_a_directory_nor_a_directory_a_file(place: Place) -> None:
    (place / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        os.rename(place / "file", place / "empty")
    with pytest.raises(NotADirectoryError):
        os.rename(place / "folder", place / "file")
    assert (place / "file").read_text() == "lower\n"
    assert (place / "empty").is_dir()


def test_noreplace_refuses_what_is_there(place: Place) -> None:
    (place / "made").touch()
    if "keeping names" in place.limits:
        with pytest.raises(OSError, match="Invalid argument"):
            rename_with(RENAME_NOREPLACE, place / "made", place / "new")
        return
    rename_with(RENAME_NOREPLACE, place / "made", place / "new")
    with pytest.raises(FileExistsError):
        rename_with(RENAME_NOREPLACE, place / "new", place / "file")
    assert (place / "file").read_text() == "lower\n"


def test_exchange_swaps_two_files(place: Place) -> None:
    (place / "made").write_text("made")
    if "exchanging names" in place.limits:
        with pytest.raises(OSError, match="Invalid argument"):
            rename_with(RENAME_EXCHANGE, place / "made", place / "file")
        return
    rename_with(RENAME_EXCHANGE, place / "made", place / "file")
    assert ((place / "made").read_text(), (place / "file").read_text()) == ("lower\n", "made")


# renaming directories


def test_a_new_directory_is_renamed_with_what_is_in_it(place: Place) -> None:
    (place / "one" / "two").mkdir(parents=True)
    (place / "one" / "two" / "f").write_text("x")
    os.rename(place / "one", place / "other")
    assert not (place / "one").exists()
    assert tree(place / "other") == {"two": "/", "two/f": "x"}


def test_a_new_directory_replaces_an_empty_one_and_no_other(place: Place) -> None:
    (place / "one").mkdir()
    (place / "one" / "f").write_text("x")
    (place / "hollow").mkdir()
    os.rename(place / "one", place / "hollow")
    assert tree(place / "hollow") == {"f": "x"}
    (place / "two").mkdir()
    with pytest.raises(OSError, match=r"not empty|File exists"):
        os.rename(place / "two", place / "hollow")
    with pytest.raises(OSError, match=r"not empty|File exists"):
        os.rename(place / "two", place / "full")
    assert tree(place / "full") == {"deep": "/", "x": "base x\n", "deep/y": "base deep/y\n"}
    os.rename(place / "two", place / "empty")
    assert tree(place / "empty") == {}


@pytest.mark.parametrize("name", ["full", "dir", "over", "empty", "changed"])
def test_a_layers_directory_is_copied_where_it_can_not_be_renamed(place: Place, name: str) -> None:
    path = place / ("full" if name == "changed" else name)
    if name == "changed":
        (path / "deep" / "y").unlink()
        (path / "new").write_text("new")
    before = tree(path)
    if "directories of layers" in place.limits:
        with pytest.raises(OSError, match="cross-device"):  # on which mv copies
            os.rename(path, place / "moved")
        assert tree(path) == before
        subprocess.run(["mv", path, place / "moved"], check=True, timeout=60)
        assert tree(place / "moved") == before
    else:
        os.rename(path, place / "moved")
        assert tree(place / "moved") == before
    assert not path.exists()


def test_a_directory_cannot_move_into_itself(place: Place) -> None:
    (place / "one" / "two").mkdir(parents=True)
    with pytest.raises(OSError, match="Invalid argument"):
        os.rename(place / "one", place / "one" / "two" / "three")


# links and special files


@pytest.mark.parametrize("name", ["file", "made"])
def test_a_hard_link_is_the_same_file(place: Place, name: str) -> None:
    if name == "made":
        (place / name).write_text("lower\n")
    os.link(place / name, place / "other")
    (place / "other").write_text("changed")
    if "links" in place.limits:
        time.sleep(1.1)  # so long the kernel keeps what it was told of the other name
    assert (place / name).read_text() == "changed"
    one, two = (place / name).stat(), (place / "other").stat()
    assert (one.st_nlink, two.st_nlink) == (2, 2)
    told_apart = "numbers of links" in place.limits or (
        "numbers of layers' links" in place.limits and name == "file"
    )
    assert (one.st_ino != two.st_ino) is told_apart
    (place / name).unlink()
    if "links" in place.limits:
        time.sleep(1.1)
    assert (place / "other").read_text() == "changed"
    assert (place / "other").stat().st_nlink == 1


def test_hard_links_of_a_layer_part_once_one_is_changed_or_change_together(place: Place) -> None:
    with (place / "first").open("a") as file:
        file.write("more\n")
    assert (place / "first").read_text() == "linked\nmore\n"
    parted = "links of layers" in place.limits
    assert (place / "second").read_text() == ("linked\n" if parted else "linked\nmore\n")
    if "names of links" in place.limits:
        kept = [name for name in ("first", "second") if (place.upper / name).exists()]
        assert len(kept) == 1


def test_a_symbolic_link_is_kept_as_it_was_written_and_followed(place: Place) -> None:
    (place / "new").symlink_to("dir/sub/../a")
    assert os.readlink(place / "new") == "dir/sub/../a"
    assert (place / "new").read_text() == "base a\n"
    assert os.readlink(place / "link") == "file"
    (place / "link").unlink()
    (place / "link").symlink_to("big")
    assert os.readlink(place / "link") == "big"


@pytest.mark.parametrize("name", ["fifo", "made"])
def test_a_fifo_passes_on_what_is_written(place: Place, name: str) -> None:
    if name == "made":
        os.mkfifo(place / name)
    writer = threading.Thread(target=lambda: (place / name).write_text("through"))
    writer.start()
    assert (place / name).read_text() == "through"
    writer.join()
    (place / name).unlink()
    assert not (place / name).exists()


# deleting and making again


@pytest.mark.parametrize("name", ["file", "dir/b", "dir/sub/c", "over/three", "link", "fifo"])
def test_what_a_layer_has_is_deleted_and_stays_away(place: Place, name: str) -> None:
    path = place / name
    path.unlink()
    assert not os.path.lexists(path)
    assert path.name not in os.listdir(path.parent)
    with pytest.raises(FileNotFoundError):
        path.unlink()


def test_what_a_layer_deletes_is_not_there_and_can_be_made_again(place: Place) -> None:
    for name in ("dir/gone", "over/one"):
        assert not os.path.lexists(place / name)
        (place / name).write_text("new")
        assert (place / name).read_text() == "new"
        (place / name).unlink()
        assert not os.path.lexists(place / name)
    assert sorted(os.listdir(place / "over")) == ["three"]


def test_what_a_layer_deletes_stays_away_when_its_directory_is_changed(place: Place) -> None:
    (place / "dir").chmod(0o700)
    os.utime(place / "over", ns=(0, 0))
    shown = {**tree(place / "dir"), **tree(place / "over")}
    assert shown.keys() == {"a", "b", "sub", "sub/c", "three"}


def test_a_deleted_file_made_again_is_new(place: Place) -> None:
    before = (place / "script").stat().st_mode
    (place / "script").unlink()
    (place / "script").write_text("x")
    assert (place / "script").stat().st_mode != before
    (place / "script").unlink()
    (place / "script").mkdir()
    assert os.listdir(place / "script") == []
    (place / "script").rmdir()
    (place / "script").symlink_to("file")
    assert (place / "script").read_text() == "lower\n"


def remove(path: Path) -> None:
    for parent, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in directories:
            os.rmdir(os.path.join(parent, name))
    path.rmdir()


@pytest.mark.parametrize("name", ["full", "dir", "over", "empty"])
def test_a_deleted_directory_made_again_is_empty(place: Place, name: str) -> None:
    remove(place / name)
    assert name not in os.listdir(place.path)
    (place / name).mkdir()
    assert os.listdir(place / name) == []
    found = {inner for inner in ("a", "one", "x") if os.path.lexists(place / name / inner)}
    ghosts = {"full": {"x"}, "dir": {"a"}}.get(name, set())
    assert found == (ghosts if "names of directories made again" in place.limits else set())
    if name == "full" and "directories made again" in place.limits:
        with pytest.raises(FileExistsError):
            (place / name / "deep").mkdir()
        return
    (place / name / "deep").mkdir()
    assert os.listdir(place / name / "deep") == []
    remove(place / name)
    (place / name).write_text("a file now")
    assert (place / name).read_text() == "a file now"


@pytest.mark.parametrize("name", ["full", "dir", "over", "empty"])
def test_a_deleted_directory_made_again_may_be_renamed(place: Place, name: str) -> None:
    remove(place / name)
    (place / name).mkdir()
    subprocess.run(["mv", place / name, place / "renamed"], check=True, timeout=60)
    assert os.listdir(place / "renamed") == []
    returns = "renaming directories made again" in place.limits
    assert (name in os.listdir(place.path)) == returns


def test_a_directory_that_is_not_empty_stays(place: Place) -> None:
    for name in ("full", "over", "dir"):
        with pytest.raises(OSError, match="not empty"):
            (place / name).rmdir()
    (place / "over" / "three").unlink()
    (place / "over").rmdir()
    assert not (place / "over").exists()


# listing


def test_a_listing_follows_every_change(place: Place) -> None:
    base = {"file", "big", "script", "dir", "empty", "over", "full", "link", "fifo"}
    base |= {"first", "second", "setuid", "setgid"}
    assert set(os.listdir(place.path)) == base
    (place / "new").touch()
    (place / "file").unlink()
    os.rename(place / "big", place / "small")
    (place / "empty").rmdir()
    assert set(os.listdir(place.path)) == base - {"file", "big", "empty"} | {"new", "small"}
    assert sorted(os.listdir(place / "dir")) == ["a", "b", "sub"]
    assert len(os.listdir(place.path)) == len(set(os.listdir(place.path)))


def test_an_open_listing_shows_what_is_new_when_it_is_rewound(place: Place) -> None:
    descriptor = os.open(place / "full", os.O_RDONLY)
    assert sorted(os.listdir(descriptor)) == ["deep", "x"]
    (place / "full" / "new").touch()
    assert sorted(os.listdir(descriptor)) == ["deep", "new", "x"]
    os.close(descriptor)


def test_a_large_directory_is_made_listed_and_removed(place: Place) -> None:
    names = {f"entry-{number:04}-{'x' * 40}" for number in range(2000)}
    (place / "large").mkdir()
    for name in names:
        (place / "large" / name).touch()
    assert set(os.listdir(place / "large")) == names
    for name in sorted(names)[::2]:
        (place / "large" / name).unlink()
    assert set(os.listdir(place / "large")) == set(sorted(names)[1::2])


ODD = [
    *(b"with space", b"new\nline", b"tab\tand\\backslash", b"comma,colon:equals=", b"-rf", b"%s"),
    *(b"not-\xff\xfe-utf8", "ünïcödé".encode(), b".hidden", b"..."),
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_kept_as_they_are(place: Place, name: bytes) -> None:
    base = os.fsencode(place.path)
    path = os.path.join(base, name)
    with open(path, "wb") as file:
        file.write(b"x")
    assert name in os.listdir(base)
    os.rename(path, path + b"2")
    os.mkdir(path)
    with open(os.path.join(path, name), "wb") as file:
        file.write(b"inner")
    assert os.listdir(path) == [name]
    os.unlink(os.path.join(path, name))
    os.rmdir(path)
    os.unlink(path + b"2")
    assert not {name, name + b"2"} & set(os.listdir(base))


@pytest.mark.parametrize("length", [200, 246, 247, 250, 251, 255])
def test_a_long_name_is_made_renamed_and_removed(place: Place, length: int) -> None:
    name = "n" * length
    if length > 251 and "long names" in place.limits:
        with pytest.raises(OSError, match="too long"):
            (place / name).touch()
        return
    (place / name).write_text("x")
    assert name in os.listdir(place.path)
    os.rename(place / name, place / ("m" * length))
    assert (place / ("m" * length)).read_text() == "x"
    (place / ("m" * length)).unlink()
    assert not (place / ("m" * length)).exists()


def test_a_name_that_is_too_long_is_said_to_be(place: Place) -> None:
    with pytest.raises(OSError, match="File name too long"):
        (place / ("x" * 256)).touch()
