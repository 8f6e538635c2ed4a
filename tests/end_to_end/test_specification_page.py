"""FlatImage's page "Filesystem Layers": its command lines, in their order and as printed there.

`/path/to` and `/another/dir` stand for the test's own directory, and pacman is a stand-in.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.session import ONCE, Session

Do = Callable[..., str]

PACMAN = '#!/bin/sh\nshift; for name in "$@"; do echo "$name" > /usr/$name; done\n'


@pytest.fixture
def data(image: Path) -> Path:
    return image.with_name(".app.flatimage.data")


@pytest.fixture
def do(session: Session, image: Path) -> Do:
    """Type a command line; its output, of which stderr has nothing but known warnings."""
    work = image.parent

    def type_in(line: str, given: str = "", code: int = 0) -> str:
        line = line.replace("/path/to", f"{work}").replace("/another/dir", f"{work}/another")
        done = session.run("sh", "-c", line, given=given.encode())
        assert done.returncode == code, f"{line}: {done}"
        if code == 0:
            told = ("casefold cannot", ONCE)
            said = [
                text
                for text in done.stderr.splitlines()
                if not any(known in text for known in told)
            ]
            assert said == [], line
        return done.stdout

    return type_in


def test_overlay_filesystems(do: Do) -> None:
    do("./app.flatimage fim-overlay set unionfs")
    assert do("./app.flatimage fim-overlay show") == "UNIONFS\n"
    do("./app.flatimage fim-overlay set overlayfs")
    assert do("./app.flatimage fim-overlay show") == "OVERLAYFS\n"
    do("./app.flatimage fim-overlay set bwrap")
    assert do("./app.flatimage fim-overlay show") == "BWRAP\n"


def test_case_insensitive_layer(do: Do, data: Path) -> None:
    # Enable casefold
    do("./app.flatimage fim-casefold on")

    # Create file
    do("./app.flatimage fim-root touch /MyFile.TXT")
    assert (data / "root" / "myfile.txt").exists()  # "stored as file.txt (lowercase)"
    assert not (data / "root" / "MyFile.TXT").exists()

    # Access with different casing
    assert "myfile.txt" in do("./app.flatimage stat /myfile.txt    # Works")
    assert "MYFILE.TXT" in do("./app.flatimage stat /MYFILE.TXT    # Works")
    assert "MyFile.TXT" in do("./app.flatimage stat /MyFile.TXT    # Works")

    # Disable casefold
    do("./app.flatimage fim-casefold off")

    # Now only lowercase works
    do("./app.flatimage stat /myfile.txt    # Works")
    do("./app.flatimage stat /MyFile.TXT    # Not found", code=1)


def test_creating_external_layers(do: Do, image: Path) -> None:
    do("mkdir directory; echo external > directory/which")

    # Create a standalone DwarFS layer
    do("./app.flatimage fim-layer create /path/to/directory layer.dwarfs")
    assert (image.parent / "layer.dwarfs").read_bytes().startswith(b"DWARFS")

    # Compression level (0-9); the page leaves one word out, which FlatImage refuses as well
    refused = "FIM_COMPRESSION_LEVEL=9 ./app.flatimage fim-layer create /path/to/file.layer"
    assert do(refused, code=125) == ""
    line = "FIM_COMPRESSION_LEVEL=9 ./app.flatimage fim-layer create /path/to/directory file.layer"
    assert "Compression level: '9'" in do(line)


def test_mode_1_binary(do: Do, image: Path, data: Path) -> None:
    do("./app.flatimage fim-exec sh -c 'echo binary > /which'")
    size = image.stat().st_size
    do("./app.flatimage fim-layer commit binary")
    assert image.stat().st_size > size  # "DwarFS layer is appended to the binary"
    assert list((data / "root").iterdir()) == []  # "Overlay directory is cleared"
    assert do("./app.flatimage cat /which") == "binary\n"  # "Next run mounts the new layer"
    do("cp app.flatimage portable.flatimage")  # "portable within the single executable"
    assert do("./portable.flatimage cat /which") == "binary\n"


def test_mode_2_layer(do: Do, data: Path) -> None:
    for number in range(2):
        do(f"./app.flatimage fim-exec sh -c 'echo {number} > /which'")
        do("./app.flatimage fim-layer commit layer")
        assert list((data / "root").iterdir()) == []
        assert do("./app.flatimage cat /which") == f"{number}\n"
    layers = data / "layers"
    assert sorted(path.name for path in layers.iterdir()) == ["layer-000.layer", "layer-001.layer"]
    assert do("./app.flatimage fim-exec sh -c 'echo $FIM_DIR_LAYERS'") == f"{layers}\n"


def test_mode_3_file(do: Do, image: Path, data: Path, session: Session) -> None:
    do("mkdir -p custom/path layers; cp app.flatimage another-app.flatimage")
    do("./app.flatimage fim-exec sh -c 'echo file > /which'")
    do("./app.flatimage fim-layer commit file ./custom/path/my-layer.dwarfs")
    assert list((data / "root").iterdir()) == []
    assert (image.parent / "custom" / "path" / "my-layer.dwarfs").exists()

    # Install packages
    subprocess.run(
        ["tee", data / "root" / "pacman"], input=PACMAN.encode(), check=True, capture_output=True
    )
    do("./app.flatimage fim-root sh -c 'cp /pacman /bin/pacman; chmod 755 /bin/pacman'")
    do("./app.flatimage fim-root pacman -S nodejs npm")

    # Save to custom location
    do("./app.flatimage fim-layer commit file ./layers/nodejs-v20.layer")

    # Later, load this layer in another FlatImage
    line = "FIM_LAYERS=./layers/nodejs-v20.layer ./another-app.flatimage"
    assert do(line, "cat /usr/nodejs /usr/npm") == "nodejs\nnpm\n"
    do("./another-app.flatimage cat /usr/nodejs", code=1)


def test_loading_external_layers(do: Do) -> None:
    for name in ("layer1", "layer2", "base-layers/a", "base-layers/b", "specific", "another/c"):
        do(f"mkdir -p base-layers another in/{name}; echo {name} > in/{name}/which")
        do(f"./app.flatimage fim-layer create in/{name} {name}.layer")
    do("mkdir layers; cp layer1.layer layers/1; cp layer2.layer layers/2")

    # Load from directory: in alphabetical order
    assert do("FIM_LAYERS=/path/to/layers ./app.flatimage", "cat /which") == "layer2\n"

    # Load specific files: in the order specified
    line = "FIM_LAYERS=/path/to/layer1.layer:/path/to/layer2.layer ./app.flatimage"
    assert do(line, "cat /which") == "layer2\n"
    line = "FIM_LAYERS=/path/to/layer2.layer:/path/to/layer1.layer ./app.flatimage"
    assert do(line, "cat /which") == "layer1\n"

    # Mix directories and files
    line = "FIM_LAYERS=/path/to/base-layers:/path/to/specific.layer:/another/dir ./app.flatimage"
    assert do(line, "cat /which") == "another/c\n"
    line = "FIM_LAYERS=/another/dir:/path/to/base-layers ./app.flatimage"
    assert do(line, "cat /which") == "base-layers/b\n"
