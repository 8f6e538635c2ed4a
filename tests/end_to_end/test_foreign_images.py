"""Images that FlatImage built are run, configured and committed to, and else stay what they are."""

import json
import os
import struct
from pathlib import Path

import pytest

from tests.flatimage.conftest import elf, record, tools
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

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.path.parent / ".foreign.flatimage.data"

    def output(self, *words: str) -> str:
        return self.session.output("fimctl", "app", self.path, *words)

    def outside(self) -> bytes:
        """All bytes but those of the reserved space."""
        data = self.path.read_bytes()
        end = len(self.start) + self.reserved
        return data[: len(self.start)] + data[end:]


def config_layer(session: Session, image: Path, **files: str) -> bytes:
    """A layer with settings in the form of 1.x."""
    config = session.directory / "work" / "layer" / "fim" / "config"
    config.mkdir(parents=True)
    for name, text in files.items():
        (config / f"{name}.json").write_text(text)
    layer = session.directory / "work" / "config.layer"
    created = session.run(image, "fim-layer", "create", str(config.parents[1]), str(layer))
    assert created.returncode == 0, created
    return layer.read_bytes()


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
    image.output("fim-overlay", "set", "overlayfs")
    image.output("fim-perms", "add", "home,network")
    image.output("fim-boot", "set", "sh", "-c", "echo $GREETING $1", "sh")
    assert image.output("there") == "hello there\n"
    assert image.output("fim-overlay", "show") == "OVERLAYFS\n"
    assert image.outside() == before
    image.output("fim-exec", "sh", "-c", "echo kept > /kept")
    done = session.run("fimctl", "app", image.path, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    assert image.outside()[: len(before)] == before
    assert len(image.output("fim-layer", "list").splitlines()) == 2
    assert not (image.data / "root" / "kept").exists()
    assert image.output("fim-exec", "cat", "/kept") == "kept\n"


def test_a_1_0_8_image(session: Session, base: bytes) -> None:
    image = Foreign(session, "v1", [record(base)])
    before = image.outside()
    assert image.output("fim-exec", "cat", "/etc/release") == "small\n"
    image.output("fim-perms", "add", "home,network")
    assert image.output("fim-perms", "list") == "home\nnetwork\n"
    image.output("fim-notify", "on")
    assert image.outside() == before
    for words, setting in ((("overlay", "set"), "overlay"), (("unshare", "add"), "unshare")):
        value = "unionfs" if setting == "overlay" else "ipc"
        done = session.run("fimctl", *words, image.path, value)
        assert done.returncode == 125
        assert f"is a FlatImage 1.x, which has no setting '{setting}'" in done.stderr
    image.output("fim-exec", "sh", "-c", "echo kept > /kept")
    done = session.run("fimctl", "app", image.path, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    assert image.outside()[: len(before)] == before
    assert image.output("fim-exec", "cat", "/kept") == "kept\n"


def test_settings_that_a_1_0_8_image_keeps_in_its_layers(
    session: Session, base: bytes, image: Path
) -> None:
    layer = config_layer(
        session,
        image,
        boot='{"program": "echo", "args": ["$WHO"]}',
        environment='{"GREETING": "hello $WHO"}',
        bindings='{"0": {"src": "oops"}}',
        casefold='{"enable": "ON"}',
    )
    foreign = Foreign(session, "v1", [record(base), record(layer)])
    variables = {"WHO": "world"}

    def run(*words: str) -> "tuple[int, str, list[str]]":
        done = session.run("fimctl", "app", foreign.path, *words, variables=variables)
        return done.returncode, done.stdout, texts(done.stderr)

    code, output, [said] = run("there")
    assert (code, output) == (0, "$WHO there\n")
    assert "fim/config/bindings.json can't be used" in said
    code, output, _ = run("fim-exec", "sh", "-c", "echo $GREETING; cat /ETC/RELEASE")
    assert (code, output) == (0, "hello world\nsmall\n")
    assert run("fim-env", "list") == (0, "GREETING=hello world\n", [])
    assert run("fim-overlay", "show") == (0, "BWRAP\n", [])
    upper = foreign.data / "root" / "fim" / "config"
    upper.mkdir(parents=True)
    (upper / "environment.json").write_text('["GREETING=bye", "OTHER=a=b"]')
    (upper / "bindings.json").write_text("{}")
    (upper / "casefold.json").write_text('{"enable": "OFF"}')
    assert run("fim-env", "list") == (0, "GREETING=bye\nOTHER=a=b\n", [])
    assert run("fim-exec", "sh", "-c", "echo $GREETING") == (0, "bye\n", [])
    assert run("fim-overlay", "show") == (0, "BWRAP\n", [])


@pytest.mark.parametrize("commit", ["binary", "layer"])
def test_settings_of_a_1_0_8_image_are_stored_where_1_0_8_has_them(
    session: Session, base: bytes, image: Path, commit: str
) -> None:
    layer = config_layer(session, image, boot='{"program": "false", "args": []}', casefold="{}")
    foreign = Foreign(session, "v1", [record(base), record(layer)])
    before = foreign.path.read_bytes()
    foreign.output("fim-env", "add", "A=b c", "B=$A")
    foreign.output("fim-env", "del", "B")
    foreign.output("fim-boot", "set", "sh", "-c", "echo $A; cat /mnt/shown")
    foreign.output("fim-bind", "add", "ro", str(foreign.path), "/mnt/image")
    foreign.output("fim-bind", "add", "ro", "/etc/hostname", "/mnt/shown")
    foreign.output("fim-bind", "del", "0")
    foreign.output("fim-casefold", "on")
    assert foreign.path.read_bytes() == before
    stored = foreign.data / "root" / "fim" / "config"
    assert json.loads((stored / "environment.json").read_text()) == {"A": "b c"}
    assert json.loads((stored / "casefold.json").read_text())["enable"] == "ON"
    assert json.loads((stored / "boot.json").read_text())["program"] == "sh"
    assert {path.stem for path in stored.iterdir()} == {
        "environment",
        "casefold",
        "boot",
        "bindings",
    }
    expected = f"b c\n{Path('/etc/hostname').read_text()}"
    assert foreign.output() == expected
    done = session.run("fimctl", "app", foreign.path, "fim-layer", "commit", commit)
    assert done.returncode == 0, done
    assert list((foreign.data / "root").iterdir()) == []
    assert foreign.output() == expected
    session.output("fimctl", "boot", "clear", foreign.path)
    assert foreign.output("-c", "echo $A") == "b c\n"
    session.output("fimctl", "casefold", foreign.path, "off")
    session.output("fimctl", "env", "clear", foreign.path)
    assert foreign.output("fim-env", "list") == ""


def test_a_link_that_a_program_left_does_not_lead_a_setting_elsewhere(
    session: Session, base: bytes
) -> None:
    foreign = Foreign(session, "v1", [record(base)])
    target = session.directory / "work" / "precious"
    target.mkdir()
    os.chown(target, session.account.uid, session.account.gid)
    foreign.output("fim-exec", "ln", "-s", str(target), "/fim")
    done = session.run("fimctl", "env", "add", foreign.path, "A=b")
    assert done.returncode == 125
    assert "fim/config/environment.json can't be written" in done.stderr
    assert list(target.iterdir()) == []


def test_what_was_changed_by_1_0_8_is_seen_and_changed_in_its_place(
    session: Session, base: bytes
) -> None:
    foreign = Foreign(session, "v1", [record(base)])
    former = foreign.path.with_name(".foreign.flatimage.config") / "overlays" / "upperdir"
    session.output("mkdir", "-p", former / "fim" / "config")
    session.output("sh", "-c", f"echo old > {former}/old")
    settings = former / "fim" / "config" / "environment.json"
    session.output("sh", "-c", f'echo \'{{"A": "b"}}\' > {settings}')
    assert session.output("fimctl", "env", "list", foreign.path) == "A=b\n"
    assert (
        foreign.output("fim-exec", "sh", "-c", "cat /old; echo $A; echo new > /new") == "old\nb\n"
    )
    assert (former / "new").read_text() == "new\n"
    done = session.run("fimctl", "app", foreign.path, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    assert list(former.iterdir()) == []
    assert foreign.output("fim-exec", "cat", "/old", "/new") == "old\nnew\n"
    session.remove_data(foreign.data)
    assert foreign.output("fim-exec", "cat", "/new") == "new\n"


def test_what_was_changed_by_1_0_8_is_not_shown_in_another_image_of_that_name(
    session: Session, base: bytes
) -> None:
    foreign = Foreign(session, "v2", [record(base)])
    former = foreign.path.with_name(".foreign.flatimage.config") / "overlays" / "upperdir"
    session.output("mkdir", "-p", former)
    session.output("sh", "-c", f"echo old > {former}/old")
    assert session.run("fimctl", "run", foreign.path, "cat", "/old").returncode == 1
    assert not (foreign.data / "root").is_symlink()


def test_a_1_0_8_image_heeds_the_variables_of_1_0_8(
    session: Session, base: bytes, image: Path
) -> None:
    former, newer = Foreign(session, "v1", [record(base)]), image
    work = session.directory / "work"
    for name in ("a", "b"):
        session.output("mkdir", "-p", f"in-{name}", "layers")
        session.output("sh", "-c", f"echo {name} > in-{name}/which")
    session.output("fimctl", "layer", "create", "in-a", "layers/a.layer")
    session.output("fimctl", "layer", "create", "in-b", "b.layer")
    directory = {"FIM_DIRS_LAYER": "$WORK/layers", "WORK": str(work)}
    both = {**directory, "FIM_FILES_LAYER": str(work / "b.layer")}

    def output(path: Path, variables: dict[str, str], *words: str) -> str:
        return session.run("fimctl", "app", path, *words, variables=variables).stdout

    which = ("fim-exec", "cat", "/which")
    assert output(former.path, directory, *which) == "a\n"
    assert output(former.path, both, *which) == "b\n"
    assert len(output(former.path, both, "fim-layer", "list").splitlines()) == 3
    assert output(newer, both, *which) == ""
    show = ("fim-overlay", "show")
    for name, value in (("FIM_FUSE_UNIONFS", "UNIONFS"), ("FIM_FUSE_OVERLAYFS", "OVERLAYFS")):
        assert output(former.path, {name: "1"}, *show) == f"{value}\n"
        assert output(former.path, {name: "0"}, *show) == "BWRAP\n"
        assert output(former.path, {name: "1", "FIM_OVERLAY": "bwrap"}, *show) == "BWRAP\n"
        assert output(newer, {name: "1"}, *show) == "BWRAP\n"
        told = output(former.path, {name: "1", "FIM_DEBUG": "1"}, "fim-exec", "true")
        assert ("UNIONFS_FUSE" if value == "UNIONFS" else "FUSE_OVERLAYFS") in told


KINDS = ("v2", "v2 without its section", "v1")


def damaged(what: str, layer: bytes) -> bytes:
    """A record with something wrong in it."""
    if what == "an image whose sections are random":
        return record(b"DWARFS" + os.urandom(5000))
    if what == "bytes that are no image":
        return record(b"nothing like it" * 300)
    if what == "a length word of zero":
        return bytes(8) + layer
    if what == "a length word past the end":
        return struct.pack("<Q", 1 << 60) + layer
    if what == "a magic that is gone":
        return struct.pack("<Q", len(layer)) + b"XXXXXX" + layer[6:]
    raise ValueError(what)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("v2", "an image whose sections are random"),
        ("v1", "an image whose sections are random"),
        ("v2", "bytes that are no image"),
        ("v2 without its section", "a length word of zero"),
        ("v1", "a length word past the end"),
        ("v2", "a magic that is gone"),
    ],
)
def test_one_bad_record_does_not_hide_the_others(
    session: Session, base: bytes, image: Path, kind: str, what: str
) -> None:
    session.output(image, "fim-exec", "sh", "-c", "echo top > /top")
    assert session.run(image, "fim-layer", "commit", "binary").returncode == 0
    top = layers_of(image)[1]
    foreign = Foreign(session, kind, [record(base), damaged(what, top), record(top)])
    before = foreign.outside()
    offset = len(foreign.start) + foreign.reserved + 8 + len(base)

    def run(*words: str) -> str:
        done = session.run("fimctl", "app", foreign.path, *words)
        assert done.returncode == 0, done
        reported = [text for text in texts(done.stderr) if str(foreign.path) in text]
        assert len(reported) == len(texts(done.stderr)) <= 1
        assert all(f"at offset {offset}:" in text for text in reported)
        return done.stdout if words[0] != "fim-exec" or reported else "not reported"

    assert run("fim-exec", "cat", "/etc/release", "/top") == "small\ntop\n"
    run("fim-perms", "add", "network")
    run("fim-env", "add", "A=b")
    assert run("fim-exec", "sh", "-c", "echo $A") == "b\n"
    assert foreign.outside() == before
    run("fim-exec", "sh", "-c", "echo kept > /kept")
    run("fim-layer", "commit", "binary")
    assert foreign.outside()[: len(before)] == before
    session.remove_data(foreign.data)
    assert run("fim-exec", "cat", "/top", "/kept") == "top\nkept\n"


@pytest.mark.parametrize("kind", KINDS)
def test_an_append_that_was_interrupted_is_no_obstacle(
    session: Session, base: bytes, kind: str
) -> None:
    foreign = Foreign(session, kind, [record(base), struct.pack("<Q", 9999) + base[:3000]])
    whole = len(foreign.start) + foreign.reserved + 8 + len(base)
    before = foreign.path.read_bytes()[:whole]
    done = session.run("fimctl", "run", foreign.path, "sh", "-c", "cat /etc/release; echo > /new")
    assert (done.returncode, done.stdout) == (0, "small\n"), done
    done = session.run("fimctl", "layer", "commit", foreign.path, "binary")
    assert done.returncode == 0, done
    assert foreign.path.read_bytes()[:whole] == before
    assert len(foreign.output("fim-layer", "list").splitlines()) == 2


def test_a_file_that_only_looks_like_one(session: Session) -> None:
    image = Foreign(session, "v2", [])
    done = session.run("fimctl", "app", image.path, "fim-exec", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "Traceback" not in done.stderr
