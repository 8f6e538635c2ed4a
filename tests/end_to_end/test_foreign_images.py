"""Images that FlatImage built are run, configured and committed to, and else stay what they are."""

import os
import struct
from pathlib import Path

import pytest

from tests.image.conftest import elf, record, tools
from tests.support.image_commands import texts
from tests.support.session import Session

MIB = 1 << 20
OWN_CHAIN = 4096 + 4 * MIB


def layers_of(image: Path) -> list[bytes]:
    """The layers in a chain that begins where those of our images do."""
    data, found, at = image.read_bytes(), [], OWN_CHAIN
    while at < len(data):
        [size] = struct.unpack_from("<Q", data, at)
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return found


class Foreign:
    """A file as FlatImage makes it, in a session."""

    def __init__(self, session: Session, kind: str, records: list[bytes]) -> None:
        self.session = session
        blobs = tools(13 if kind == "v1" else 12)
        if kind == "v2":
            self.start = elf(len(elf(0)) + len(blobs)) + blobs
        else:  # v1, or v2 without the section that records the offset
            self.start = elf() + blobs
        self.reserved = (2 if kind == "v1" else 4) * MIB
        made = session.directory / "made"
        made.write_bytes(self.start + bytes(self.reserved) + b"".join(records))
        self.path = session.adopt(made, "foreign.flatimage")
        self.path.chmod(0o755)

    def output(self, *words: str) -> str:
        return self.session.output("fimctl", "app", self.path, *words)

    def outside(self) -> bytes:
        """All bytes but those of the reserved space."""
        data = self.path.read_bytes()
        end = len(self.start) + self.reserved
        return data[: len(self.start)] + data[end:]


@pytest.fixture
def base(busybox_image: Path) -> bytes:
    [layer] = layers_of(busybox_image)
    return layer


@pytest.mark.parametrize("kind", ["v2", "v2 without its section"])
def test_a_2_x_image(session: Session, base: bytes, kind: str) -> None:
    image = Foreign(session, kind, [record(base)])
    before = image.outside()
    assert image.output("fim-exec", "cat", "/etc/release") == "small\n"
    image.output("fim-env", "add", "GREETING=hello")
    image.output("fim-overlay", "set", "unionfs")
    image.output("fim-perms", "add", "home,network")
    image.output("fim-boot", "set", "sh", "-c", "echo $GREETING $1", "sh")
    assert image.output("there") == "hello there\n"
    assert image.output("fim-overlay", "show") == "UNIONFS\n"
    assert image.outside() == before
    image.output("fim-exec", "sh", "-c", "echo kept > /kept")
    done = session.run("fimctl", "app", image.path, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    assert image.outside()[: len(before)] == before
    assert len(image.output("fim-layer", "list").splitlines()) == 2
    data = image.path.parent / ".foreign.flatimage.data"
    assert not (data / "root" / "kept").exists()
    assert image.output("fim-exec", "cat", "/kept") == "kept\n"


def test_a_1_0_8_image(session: Session, base: bytes) -> None:
    image = Foreign(session, "v1", [record(base)])
    before = image.outside()
    assert image.output("fim-exec", "cat", "/etc/release") == "small\n"
    image.output("fim-perms", "add", "home,network")
    assert image.output("fim-perms", "list") == "home\nnetwork\n"
    image.output("fim-notify", "on")
    done = session.run("fimctl", "app", image.path, "fim-env", "add", "A=b")
    assert done.returncode == 125
    assert "is a FlatImage 1.x, which keeps 'environment' inside its layers" in done.stderr
    assert image.outside() == before
    image.output("fim-exec", "sh", "-c", "echo kept > /kept")
    done = session.run("fimctl", "app", image.path, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    assert image.outside()[: len(before)] == before
    assert image.output("fim-exec", "cat", "/kept") == "kept\n"


def test_settings_that_a_1_0_8_image_keeps_in_its_layers(
    session: Session, base: bytes, image: Path
) -> None:
    config = session.directory / "work" / "layer" / "fim" / "config"
    config.mkdir(parents=True)
    (config / "boot.json").write_text('{"program": "echo", "args": ["$WHO"]}')
    (config / "environment.json").write_text('{"GREETING": "hello $WHO"}')
    (config / "bindings.json").write_text('{"0": {"src": "oops"}}')
    layer = session.directory / "work" / "config.layer"
    created = session.run(image, "fim-layer", "create", str(config.parents[1]), str(layer))
    assert created.returncode == 0, created
    foreign = Foreign(session, "v1", [record(base), record(layer.read_bytes())])
    variables = {"WHO": "world"}

    def run(*words: str) -> "tuple[int, str, list[str]]":
        done = session.run("fimctl", "app", foreign.path, *words, variables=variables)
        return done.returncode, done.stdout, texts(done.stderr)

    code, output, [said] = run("there")
    assert (code, output) == (0, "$WHO there\n")
    assert "fim/config/bindings.json can't be used" in said
    code, output, _ = run("fim-exec", "sh", "-c", "echo $GREETING")
    assert (code, output) == (0, "hello world\n")
    assert run("fim-env", "list") == (0, "GREETING=hello world\n", [])
    upper = foreign.path.parent / ".foreign.flatimage.data" / "root" / "fim" / "config"
    upper.mkdir(parents=True)
    (upper / "environment.json").write_text('{"GREETING": "bye"}')
    (upper / "bindings.json").write_text("{}")
    assert run("fim-env", "list") == (0, "GREETING=bye\n", [])
    assert run("fim-exec", "sh", "-c", "echo $GREETING") == (0, "bye\n", [])


def test_one_bad_record_does_not_hide_the_others(
    session: Session, base: bytes, image: Path
) -> None:
    session.output(image, "fim-exec", "sh", "-c", "echo top > /top")
    assert session.run(image, "fim-layer", "commit", "binary").returncode == 0
    top = layers_of(image)[1]
    bad = record(b"DWARFS" + os.urandom(5000))
    foreign = Foreign(session, "v2", [record(base), bad, record(top)])
    done = session.run("fimctl", "app", foreign.path, "fim-exec", "cat", "/etc/release", "/top")
    assert (done.returncode, done.stdout) == (0, "small\ntop\n"), done
    [said] = texts(done.stderr)
    offset = len(foreign.start) + foreign.reserved + 8 + len(base)
    assert str(foreign.path) in said
    assert str(offset) in said or str(offset + 8) in said


def test_a_file_that_only_looks_like_one(session: Session) -> None:
    image = Foreign(session, "v2", [])
    done = session.run("fimctl", "app", image.path, "fim-exec", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "Traceback" not in done.stderr
