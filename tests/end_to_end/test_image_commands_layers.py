"""fim-layer, the data directory, and what users do to both between two commands."""

import os
from pathlib import Path

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.overlays import INSTALLED
from tests.support.session import Session

FAST = {"FIM_COMPRESSION_LEVEL": "1"}


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image, FAST)


def write(app: Commands, text: str, path: str = "/file") -> None:
    app.silent("fim-exec", "sh", "-c", f"echo {text} > {path}")


def source(app: Commands, name: str, text: str) -> Path:
    """A directory with one file, /file."""
    directory = app.session.directory / "work" / name
    directory.mkdir()
    (directory / "file").write_text(f"{text}\n")
    return directory


def listed(app: Commands, **variables: str) -> list[tuple[str, str, str, str]]:
    output = app.session.output(app.image, "fim-layer", "list", variables=variables)
    rows = [tuple(line.split(":", 3)) for line in output.splitlines()]
    assert [row[0] for row in rows] == [str(index) for index in range(len(rows))]
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def test_create_says_what_it_does_and_replaces_the_file(app: Commands) -> None:
    target = app.session.directory / "work" / "a:b.layer"
    target.write_text("old")
    for text in ("one", "two"):
        assert app.said("fim-layer", "Create", str(source(app, text, text)), str(target)) == [
            "Gathering files to compress...",
            "Compression level: '1'",
            f"Compress filesystem to '{target}'",
            "Filesystem created without errors",
        ]
    assert app.said("fim-layer", "ADD", str(target)) == [
        f"Included novel layer from file '{target}'"
    ]
    assert app.output("fim-exec", "cat", "/file") == "two\n"
    folder = target.with_name("folder")
    folder.mkdir()
    target.rename(folder / target.name)
    *_, last = listed(app, FIM_LAYERS=str(folder))
    assert last[1:] == ("0", str((folder / target.name).stat().st_size), f"{folder}/a:b.layer")


def test_what_create_cannot_read_is_told_after_its_first_line(app: Commands) -> None:
    target = str(app.session.directory / "work" / "target")
    for path, text in (
        ("/nowhere", "Source directory '/nowhere' does not exist"),
        ("/etc/passwd", "Source '/etc/passwd' is not a directory"),
    ):
        done = app.session.run(app.image, "fim-layer", "create", path, target)
        assert done.returncode == 125
        assert texts(done.stdout) == ["Gathering files to compress..."]
        assert texts(done.stderr) == [
            text,
            "Failed to create layer",
            "The program exited with an error",
        ]
    missing = "create requires exactly two arguments (/path/to/dir /path/to/file.layer)"
    for words in ([], ["a"], ["a", "b", "c"]):
        assert app.wrong("fim-layer", "create", *words) == [missing]
    missing = "add requires exactly one argument (/path/to/file.layer)"
    for words in ([], ["a", "b"]):
        assert app.wrong("fim-layer", "add", *words) == [missing]
    said = app.refused("fim-layer", "add", "/nowhere")
    assert said[0].startswith("Failed to open input file '/nowhere'")
    assert said[1:] == ["Failed to add layer", "The program exited with an error"]


@pytest.mark.parametrize(
    ("given", "level"),
    [("", 7), ("0", 0), ("9", 9), ("12", 9), ("-3", 0), ("5x", 5), ("x", 7)],
)
def test_the_level_of_compression(app: Commands, given: str, level: int) -> None:
    folder = source(app, "source", "x")
    target = app.session.directory / "work" / "target"
    words = ("fim-layer", "create", folder, target)
    done = app.session.run(app.image, *words, variables={"FIM_COMPRESSION_LEVEL": given})
    assert done.returncode == 0
    assert f"Compression level: '{level}'" in texts(done.stdout)


def test_commits_are_numbered_without_a_limit_of_their_own(app: Commands) -> None:
    for number in range(30):
        write(app, str(number), f"/{number}")
        said = app.said("fim-layer", "commit", "LAYER")
        assert f"Layer number: {number}" in said
        assert said[-2:] == [
            f"Layer saved to '{app.data}/layers/layer-{number:03}.layer'",
            "Finished erasing files",
        ]
    names = [f"layer-{number:03}.layer" for number in range(30)]
    assert sorted(os.listdir(app.data / "layers")) == names
    assert [os.path.basename(row[3]) for row in listed(app)[1:]] == names
    assert app.output("fim-exec", "cat", "/0", "/9", "/29") == "0\n9\n29\n"


def test_gaps_are_not_filled_and_a_thousandth_layer_is_refused(app: Commands) -> None:
    write(app, "first")
    app.said("fim-layer", "commit", "layer")
    layers = app.data / "layers"
    (layers / "layer-000.layer").rename(layers / "layer-998.layer")
    write(app, "second")
    assert "Layer number: 999" in app.said("fim-layer", "commit", "layer")
    write(app, "third")
    done = app.session.run(app.image, "fim-layer", "commit", "layer")
    assert done.returncode == 125
    said = texts(done.stderr)
    assert said[0].startswith("Maximum number of layers exceeded")
    assert said[1:] == ["Failed to commit layer", "The program exited with an error"]
    assert (app.data / "root" / "file").read_text() == "third\n"


def test_a_committed_layer_is_where_it_was_put_and_nowhere_else(app: Commands) -> None:
    target = app.session.directory / "work" / "own.layer"
    cat = (app.image, "fim-exec", "cat", "/file")
    write(app, "in a file")
    assert app.said("fim-layer", "commit", "File", str(target))[-3:] == [
        f"Layer saved to '{target}'",
        f"To see its content again: FIM_LAYERS={target}, or 'fim-layer add {target}'",
        "Finished erasing files",
    ]
    assert app.session.run(*cat).returncode == 1
    assert app.session.output(*cat, variables={"FIM_LAYERS": str(target)}) == "in a file\n"
    write(app, "again")
    refused = app.session.run(app.image, "fim-layer", "commit", "file", target)
    assert refused.returncode == 125
    assert texts(refused.stderr)[0] == "Destination file already exists"
    assert app.session.output(*cat) == "again\n"
    app.said("fim-layer", "commit", "Binary")
    assert list((app.data / "root").iterdir()) == []
    app.session.remove_data(app.data)  # nothing of the old upper stays in it
    assert app.session.output(*cat) == "again\n"
    app.said("fim-layer", "add", str(target))
    assert app.session.output(*cat) == "in a file\n"


def test_files_of_the_users_own_survive_in_tmp(app: Commands) -> None:
    app.output("fim-version", "short")
    own = app.data / "tmp" / "notes"
    own.write_text("mine\n")
    write(app, "x")
    for mode in ("binary", "layer"):
        write(app, mode)
        app.said("fim-layer", "commit", mode)
    assert own.read_text() == "mine\n"


def test_what_cannot_be_erased_is_a_warning(app: Commands) -> None:
    if os.getuid() != 0 or app.session.account.uid == 0:
        pytest.skip("it takes a file that only root can remove, and a plain user")
    write(app, "x")
    kept = app.data / "root" / "kept"
    kept.mkdir()
    (kept / "file").write_text("root's\n")
    done = app.session.run(app.image, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    assert texts(done.stdout)[-1] == "Finished erasing files"
    [said] = texts(done.stderr)
    assert said.startswith("Could not remove file ")
    assert "/kept/file" in said
    assert app.output("fim-exec", "cat", "/kept/file", "/file") == "root's\nx\n"
    write(app, "y")
    app.said("fim-layer", "commit", "binary")
    assert app.output("fim-exec", "cat", "/kept/file", "/file") == "root's\ny\n"
    assert (app.data / "root").is_dir()


def test_a_file_written_inside_is_the_callers_and_at_the_same_place_below_root(
    app: Commands,
) -> None:
    app.silent("fim-exec", "sh", "-c", "mkdir /a; echo x > /a/b")
    facts = (app.data / "root" / "a" / "b").stat()
    assert (facts.st_uid, facts.st_gid) == (app.session.account.uid, app.session.account.gid)


@pytest.mark.parametrize("overlay", INSTALLED)
def test_the_next_command_sees_what_a_user_did_to_the_data_directory(
    app: Commands, overlay: str
) -> None:
    app.silent("fim-overlay", "set", overlay)
    write(app, "one")
    (app.data / "root" / "put").write_text("by hand\n")
    assert app.output("fim-exec", "cat", "/file", "/put") == "one\nby hand\n"
    app.session.output("rm", "-r", app.data / "root")
    assert app.session.run(app.image, "fim-exec", "cat", "/file").returncode == 1
    assert (app.data / "root").is_dir()
    for text in ("low", "high"):
        write(app, text)
        app.said("fim-layer", "commit", "layer")
    layers = app.data / "layers"
    assert app.output("fim-exec", "cat", "/file") == "high\n"
    (layers / "layer-000.layer").rename(layers / "z.layer")
    assert app.output("fim-exec", "cat", "/file") == "low\n"
    (layers / "z.layer").unlink()
    assert app.output("fim-exec", "cat", "/file") == "high\n"
    app.session.remove_data(app.data)
    assert app.session.run(app.image, "fim-exec", "cat", "/file").returncode == 1
    app.session.wait_until_clean()


def test_an_image_that_is_overwritten_or_copied_is_another(
    app: Commands, busybox_image: Path
) -> None:
    write(app, "committed")
    app.said("fim-layer", "commit", "binary")
    write(app, "uncommitted")
    copy = Commands(app.session, app.session.adopt(app.image, "copy.flatimage"))
    assert copy.output("fim-exec", "cat", "/file") == "committed\n"
    write(copy, "of the copy")
    assert app.output("fim-exec", "cat", "/file") == "uncommitted\n"
    app.image.write_bytes(busybox_image.read_bytes())
    app.session.remove_data(app.data)
    assert app.session.run(app.image, "fim-exec", "cat", "/file").returncode == 1


def test_two_data_directories_are_two_writable_layers(app: Commands) -> None:
    for name in ("one", "two"):
        app.session.output(
            *(app.image, "fim-exec", "sh", "-c", f"echo {name} > /file"),
            variables={"FIM_DIR_DATA": name},
        )
    for name in ("one", "two"):
        shown = app.session.output(
            *(app.image, "fim-exec", "cat", "/file"), variables={"FIM_DIR_DATA": name}
        )
        assert shown == f"{name}\n"
    assert not app.data.exists()


def test_directories_of_layers_take_links_and_any_name_in_byte_order(app: Commands) -> None:
    folder = app.session.directory / "work" / "layers"
    app.session.output("mkdir", folder)
    for name in ("b", "B", "é"):
        app.said("fim-layer", "create", str(source(app, f"in-{name}", name)), f"{folder}/{name}")
    (folder / "é").rename(folder.with_name("elsewhere"))
    (folder / "z").symlink_to("../elsewhere")
    (folder / "folder").mkdir()
    rows = listed(app, FIM_LAYERS=str(folder))
    assert [os.path.basename(row[3]) for row in rows[1:]] == ["B", "b", "z"]
    cat = (app.image, "fim-exec", "cat", "/file")
    assert app.session.output(*cat, variables={"FIM_LAYERS": str(folder)}) == "é\n"
    for nothing in ("", ":"):
        assert len(listed(app, FIM_LAYERS=nothing)) == 1
    twice = f"{folder}/b:{folder}/B:{folder}/b"
    assert [row[3][-1] for row in listed(app, FIM_LAYERS=twice)[1:]] == ["b", "B", "b"]
    assert app.session.output(*cat, variables={"FIM_LAYERS": twice}) == "b\n"


def test_after_a_commit_no_empty_directories_are_left_for_the_next(app: Commands) -> None:
    app.silent("fim-exec", "sh", "-c", "mkdir -p /a/b/c; echo x > /a/b/c/file")
    app.said("fim-layer", "commit", "layer")
    assert list((app.data / "root").iterdir()) == []
    assert app.said("fim-layer", "commit", "layer")[-1] == (
        "Nothing was changed, so no layer was made"
    )
