"""The commands that read and write an image's settings answer as FlatImage's do."""

import json
import os
from pathlib import Path

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.session import Session

CASEFOLD_WORDS = "casefold cannot be used with bwrap overlayfs, falling back to unionfs"
PERMISSIONS = (
    *("audio", "dbus_system", "dbus_user", "dev", "gpu", "home", "input", "media", "network"),
    *("optical", "shm", "udev", "usb", "wayland", "xorg"),
)


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


@pytest.mark.parametrize(
    "words",
    [["fim-version", "short"], ["fim-help", "exec"], ["fim-overlay"], ["fim-perms", "list"]],
)
def test_every_command_makes_the_data_directory(app: Commands, words: list[str]) -> None:
    app.session.run(app.image, *words)
    for name in ("root", "tmp", "work", "layers", "casefold"):
        assert (app.data / name).is_dir()


def test_an_unknown_command(app: Commands) -> None:
    for word in ("fim-foo", "fim-", "fim-EXEC", "fim-Overlay"):
        said = app.refused(word)
        assert said[:2] == [f"Unknown command: {word}", "Invalid fim command"]


def test_a_program_has_to_be_named(app: Commands) -> None:
    for word in ("fim-exec", "fim-root"):
        assert app.wrong(word) == [f"Incorrect number of arguments for {word}"]


def test_the_boot_program(app: Commands) -> None:
    default = '{\n  "args": [],\n  "program": "bash"\n}\n'
    assert app.output("fim-boot", "show") == default
    app.silent("fim-boot", "set", "echo", "hello $HOME", '"quoted"', "--flag")
    assert json.loads(app.output("fim-boot", "SHOW")) == {
        "args": ["hello $HOME", '"quoted"', "--flag"],
        "program": "echo",
    }
    assert app.wrong("fim-boot") == ["Missing op for 'fim-boot' (<set|show|clear>)"]
    assert app.wrong("fim-boot", "sett") == ["Invalid boot operation"]
    assert app.wrong("fim-boot", "set") == ["Missing program for 'set' operation"]
    for verb in ("show", "clear"):
        trailing = "Trailing arguments for fim-boot: ['a','b',]"
        assert app.wrong("fim-boot", verb, "a", "b") == [trailing]
    assert app.output("fim-boot", "show") != default
    app.silent("fim-boot", "clear")
    assert app.output("fim-boot", "show") == default


def test_the_overlay(app: Commands) -> None:
    assert app.output("fim-overlay", "show") == "BWRAP\n"
    for name in ("unionfs", "OVERLAYFS", "Bwrap"):
        app.silent("fim-overlay", "SET", name)
        assert app.output("fim-overlay", "show") == f"{name.upper()}\n"
        for chosen in ("unionfs", "overlayfs", "bwrap"):
            variables = {"FIM_OVERLAY": chosen}
            shown = app.session.output(app.image, "fim-overlay", "show", variables=variables)
            assert shown == f"{chosen.upper()}\n"
        for ignored in ("", "UNIONFS", "aufs"):
            variables = {"FIM_OVERLAY": ignored}
            shown = app.session.output(app.image, "fim-overlay", "show", variables=variables)
            assert shown == f"{name.upper()}\n"
    assert app.wrong("fim-overlay") == ["Missing op for 'fim-overlay' (<set|show>)"]
    assert app.wrong("fim-overlay", "get") == ["Invalid overlay operation"]
    assert app.wrong("fim-overlay", "set") == ["Missing argument for 'set'"]
    assert app.wrong("fim-overlay", "set", "aufs") == [
        "Invalid overlay type: aufs is none of bwrap, overlayfs, unionfs"
    ]
    for words in (("show",), ("set", "unionfs")):
        trailing = "Trailing arguments for fim-overlay: ['x','y z',]"
        assert app.wrong("fim-overlay", *words, "x", "y z") == [trailing]
    assert app.output("fim-overlay", "show") == "BWRAP\n"


def test_casefold_and_what_debugging_says_of_it_as_flatimage_does(app: Commands) -> None:
    def warned(*words: str, **variables: str) -> bool:
        debugging = {**variables, "FIM_DEBUG": "1"}
        done = app.session.run(app.image, *words, variables=debugging)
        assert done.returncode == 0
        assert texts(done.stderr) in ([], [CASEFOLD_WORDS])
        return bool(done.stderr)

    assert not warned("fim-casefold", "on")
    assert app.session.run(app.image, "fim-perms", "list").stderr == ""
    assert warned("fim-perms", "list")
    assert warned("fim-perms", "list", FIM_CASEFOLD="0")
    assert warned("fim-overlay", "show")
    assert warned("fim-casefold", "OFF")
    assert not warned("fim-casefold", "off")
    assert warned("fim-perms", "list", FIM_CASEFOLD="1")
    assert not warned("fim-perms", "list", FIM_CASEFOLD="yes")
    app.silent("fim-overlay", "set", "overlayfs")
    assert not warned("fim-casefold", "On")
    assert not warned("fim-casefold", "off")
    missing = "Incorrect number of arguments for 'fim-casefold' (<on|off>)"
    assert app.wrong("fim-casefold") == [missing]
    assert app.wrong("fim-casefold", "none") == ["Invalid casefold switch"]
    trailing = "Trailing arguments for fim-casefold: ['off',]"
    assert app.wrong("fim-casefold", "on", "off") == [trailing]


def test_notify(app: Commands) -> None:
    app.silent("fim-notify", "on")
    app.silent("fim-notify", "Off")
    missing = "Incorrect number of arguments for 'fim-notify' (<on|off>)"
    assert app.wrong("fim-notify") == [missing]
    assert app.wrong("fim-notify", "on", "off") == [missing]
    assert app.wrong("fim-notify", "none") == ["Invalid notify switch"]


def test_variables(app: Commands) -> None:
    assert app.output("fim-env", "list") == ""
    assert app.said("fim-env", "add", "B=$HOME/x", "A=b c") == [
        "Included variable 'B' with value '$HOME/x'",
        "Included variable 'A' with value 'b c'",
    ]
    home = app.session.environment["HOME"]
    assert app.output("fim-env", "list") == f"A=b c\nB={home}/x\n"
    app.said("fim-env", "ADD", "A=1=2", "META=key")
    assert app.output("fim-env", "list") == f"A=1=2\nB={home}/x\nMETA=key\n"
    assert app.said("fim-env", "del", "A", "Z") == [
        "Erase key 'A'",
        "Key 'Z' not found for deletion",
    ]
    assert app.wrong("fim-env", "set", "C=1", "wrong", "worse") == [
        "Variable assignment 'wrong' is invalid"
    ]
    assert app.output("fim-env", "list") == f"B={home}/x\nMETA=key\n"
    app.said("fim-env", "set", "$(echo $UNKNOWN)k=x", r"PS1=[app] \W > ", "C=$(echo a b) c")
    raw = "$(echo $UNKNOWN)k=x\nC=$(echo a b) c\nPS1=[app] \\W > \n"
    assert app.output("fim-env", "list") == raw
    assert app.wrong("fim-env") == ["Missing op for 'fim-env' (add,del,list,set,clear)"]
    assert app.wrong("fim-env", "get") == ["Invalid env operation"]
    for verb in ("add", "set", "del"):
        assert app.wrong("fim-env", verb) == [f"Missing arguments for '{verb.upper()}'"]
    for verb in ("list", "clear"):
        trailing = "Trailing arguments for fim-env: ['a',]"
        assert app.wrong("fim-env", verb, "a") == [trailing]
    app.silent("fim-env", "clear")
    assert app.output("fim-env", "list") == ""


@pytest.mark.parametrize(
    ("command", "names", "noun", "invalid", "missing"),
    [
        (
            "perms",
            PERMISSIONS,
            "Permission",
            "Invalid permission",
            "Missing op for fim-perms (add,del,list,set,clear)",
        ),
        (
            "unshare",
            ("cgroup", "ipc", "net", "pid", "user", "uts"),
            "Unshare option",
            "Invalid unshare option",
            "Missing op for fim-unshare (add,clear,del,list,set)",
        ),
    ],
)
def test_permissions_and_namespaces(
    app: Commands, command: str, names: tuple[str, ...], noun: str, invalid: str, missing: str
) -> None:
    fim = f"fim-{command}"

    def listed() -> list[str]:
        return app.output(fim, "list").split()

    first, second, third = names[:3]
    assert listed() == []
    app.silent(fim, "add", f"{second},{first.upper()}")
    app.silent(fim, "add", first)
    assert listed() == [first, second]
    app.silent(fim, "del", f"{first},{third}")
    assert listed() == [second]
    app.silent(fim, "set", third)
    assert listed() == [third]
    for verb in ("add", "set", "del"):
        assert app.wrong(fim, verb) == [f"No arguments for '{verb.upper()}' command"]
        assert app.wrong(fim, verb, f"{first},foo") == [invalid]
        assert app.wrong(fim, verb, "") == [invalid]
        assert app.wrong(fim, verb, "none") == [f"{invalid} 'NONE'"]
        alone = f"{noun} 'all' should not be used with others"
        assert app.wrong(fim, verb, f"all,{first}") == [alone]
        assert app.wrong(fim, verb, first, second) == [
            f"Trailing arguments for {fim}: ['{second}',]"
        ]
    for verb in ("list", "clear"):
        assert app.wrong(fim, verb, "x") == [f"Trailing arguments for {fim}: ['x',]"]
    assert app.wrong(fim) == [missing]
    assert app.wrong(fim, "get") == [f"Invalid {command} operation"]
    assert listed() == [third]
    app.silent(fim, "set", "ALL")
    assert listed() == list(names)
    app.silent(fim, "del", "all")
    assert listed() == []
    app.silent(fim, "add", "all")
    app.silent(fim, "clear")
    assert listed() == []


def test_bindings(app: Commands) -> None:
    assert app.output("fim-bind", "list") == ""
    assert app.said("fim-bind", "add", "RO", "$HOME/a b", "/a") == ["Binding index is '0'"]
    assert app.said("fim-bind", "add", "rw", "/nowhere", "/b") == ["Binding index is '1'"]
    assert app.said("fim-bind", "add", "dev", "/dev/x", "/c") == ["Binding index is '2'"]
    listed = app.output("fim-bind", "list")
    assert json.loads(listed) == {
        "0": {"dst": "/a", "src": "$HOME/a b", "type": "ro"},
        "1": {"dst": "/b", "src": "/nowhere", "type": "rw"},
        "2": {"dst": "/c", "src": "/dev/x", "type": "dev"},
    }
    assert listed.startswith('{\n  "0": {\n    "dst": "/a",\n')
    assert app.said("fim-bind", "del", "0") == ["Erase element with index '0'"]
    assert app.said("fim-bind", "del", "7") == ["No element with index '7' found"]
    assert [entry["dst"] for entry in json.loads(app.output("fim-bind", "list")).values()] == [
        "/b",
        "/c",
    ]
    count = "Incorrect number of arguments for 'add' (<ro,rw,dev> <src> <dst>)"
    for words in (["ro"], ["ro", "a"], ["ro", "a", "b", "c"], []):
        assert app.wrong("fim-bind", "add", *words) == [count]
    for kind in ("none", "foo", "wo"):
        assert app.wrong("fim-bind", "add", kind, "a") == ["Invalid bind type"]
    for index in ("foo", "-1", "1.5", ""):
        assert app.wrong("fim-bind", "del", index) == ["Index argument for 'del' is not a number"]
    for indices in ([], ["1", "2"]):
        assert app.wrong("fim-bind", "del", *indices) == [
            "Incorrect number of arguments for 'del' (<index>)"
        ]
    assert app.wrong("fim-bind", "list", "x") == ["'list' command takes no arguments"]
    assert app.wrong("fim-bind") == ["Missing op for 'fim-bind' command (add,del,list)"]
    assert app.wrong("fim-bind", "get") == ["Invalid bind operation"]


def test_version(app: Commands) -> None:
    short = app.output("fim-version", "short")
    assert short.startswith("v")
    assert short.count(".") == 2
    full = json.loads(app.output("fim-version", "FULL"))
    assert list(full) == ["COMMIT", "DISTRIBUTION", "TIMESTAMP", "VERSION"]
    assert full["COMMIT"].isalnum()
    assert full["DISTRIBUTION"] in {"ALPINE", "ARCH", "BLUEPRINT"}
    assert len(full["TIMESTAMP"]) == 14
    assert full["TIMESTAMP"].isdigit()
    assert full["VERSION"] == short.strip()
    tools = json.loads(app.output("fim-version", "deps"))
    assert {"bwrap", "busybox"} <= set(tools)
    for tool in tools.values():
        assert set(tool) == {"version", "source", "sha", "licenses"}
        assert len(tool["sha"]) == 64
        assert all(set(entry) == {"type", "url"} for entry in tool["licenses"])
    assert app.wrong("fim-version") == ["Missing op for 'fim-version' (<short|full|deps>)"]
    assert app.wrong("fim-version", "long") == ["Invalid version operation"]
    trailing = "Trailing arguments for fim-version: ['x',]"
    assert app.wrong("fim-version", "short", "x") == [trailing]


def test_help(app: Commands) -> None:
    done = app.session.run(app.image, "fim-help")
    assert (done.returncode, done.stdout) == (0, "")
    assert "fim-exec" in done.stderr
    for topic in (
        *("bind", "boot", "casefold", "desktop", "env", "exec", "help", "instance", "layer"),
        *("notify", "overlay", "perms", "recipe", "remote", "root", "unshare", "version"),
    ):
        shown = app.output("fim-help", topic)
        assert shown.splitlines()[0] == "Flatimage - Portable Linux Applications"
        assert f"fim-{topic}" in shown
    said = app.refused("fim-help", "Exec")
    assert said[0] == "Invalid argument for help command: Exec"


def test_remote_and_recipe(app: Commands) -> None:
    fresh = "https://raw.githubusercontent.com/flatimage/recipes/master\n"
    assert app.output("fim-remote", "show") == fresh
    assert app.said("fim-remote", "set", "https://x/y") == ["Set remote URL to 'https://x/y'"]
    assert app.output("fim-remote", "show") == "https://x/y\n"
    assert app.said("fim-remote", "clear") == ["Cleared remote URL"]
    assert app.refused("fim-remote", "show")[0] == "No remote URL configured"
    said = app.refused("fim-recipe", "fetch", "x")
    assert "not part of fimd" in said[0]


def test_a_read_only_image_says_so(app: Commands) -> None:
    if app.session.account.uid == 0:
        pytest.skip("root may write any file")
    before = app.image.read_bytes()
    app.image.chmod(0o555)
    for words in (["fim-overlay", "set", "unionfs"], ["fim-env", "add", "A=B"]):
        said = app.refused(*words)
        assert f"{app.image} cannot be changed" in said[0]
    assert app.output("fim-overlay", "show") == "BWRAP\n"
    assert app.image.read_bytes() == before


def test_settings_can_be_written_while_the_image_runs(app: Commands) -> None:
    process = app.session.background(app.image, "sleep 60")
    app.said("fim-env", "add", "WHILE=running")
    assert app.output("fim-exec", "sh", "-c", "echo $WHILE") == "running\n"
    process.kill()
    process.wait()


def test_a_directory_of_data_may_be_elsewhere(app: Commands) -> None:
    variables = {"FIM_DIR_DATA": "elsewhere"}
    app.session.output(app.image, "fim-perms", "list", variables=variables)
    assert (app.session.directory / "work" / "elsewhere" / "root").is_dir()
    assert not app.data.exists()


def test_fimctl_does_what_the_image_does(app: Commands) -> None:
    def fimctl(*words: str) -> str:
        return app.session.output("fimctl", *words)

    image = os.fspath(app.image)
    assert fimctl("overlay", "set", image, "unionfs") == ""
    assert fimctl("overlay", "show", image) == app.output("fim-overlay", "show") == "UNIONFS\n"
    assert fimctl("casefold", image, "preserve") == ""
    assert fimctl("casefold", image, "off") == ""
    assert fimctl("notify", image, "on") == ""
    assert fimctl("boot", "set", image, "ls", "-l", "--all") == ""
    assert fimctl("boot", "show", image) == app.output("fim-boot", "show")
    assert fimctl("boot", "clear", image) == ""
    assert fimctl("env", "add", image, "A=b") == "Included variable 'A' with value 'b'\n"
    assert fimctl("env", "list", image) == "A=b\n"
    assert fimctl("env", "del", image, "A") == "Erase key 'A'\n"
    assert fimctl("perms", "add", image, "home,gpu") == ""
    assert fimctl("perms", "list", image) == "gpu\nhome\n"
    assert fimctl("unshare", "set", image, "all") == ""
    assert fimctl("unshare", "clear", image) == ""
    assert fimctl("bind", "add", image, "ro", "/a", "/b") == "Binding index is '0'\n"
    assert fimctl("bind", "del", image, "0") == "Erase element with index '0'\n"
    assert fimctl("version") == app.output("fim-version", "short")
    done = app.session.run("fimctl", "perms", "add", image, "foo")
    assert (done.returncode, done.stderr) == (125, "fimctl: Invalid permission\n")
