import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fimd.launch.entry import PROGRAM
from tests.support.overlays import INSTALLED
from tests.support.programs import all_but
from tests.support.session import Session

OVERLAYS = [f"overlay {name}" for name in INSTALLED]
# It does not unmount, whatever the user may.
REFUSING = """#!/bin/sh
case " $* " in *" -u "*|*" --lazy "*) echo not now >&2; exit 1;; esac
exec {program} "$@"
"""


def doctor(session: Session, **options: Any) -> tuple[int, dict[str, list[dict[str, str]]]]:
    done = session.run("fimctl", "doctor", "--json", **options)
    assert done.stderr == "", done.stderr
    return done.returncode, json.loads(done.stdout)


def named(groups: dict[str, list[dict[str, str]]], name: str) -> dict[str, str]:
    [finding] = [item for group in groups.values() for item in group if item["name"] == name]
    return finding


def test_it_tries_every_backend_and_leaves_nothing(session: Session) -> None:
    began = time.monotonic()
    code, groups = doctor(session)
    assert time.monotonic() - began < 10  # under 2 s on an idle machine
    assert list(groups) == ["fuse", "sandbox", "backends", "engines", "session", "space"]
    verdicts = {item["name"]: item["verdict"] for item in groups["backends"]}
    for name in (*OVERLAYS, "layer (embedded)", "view (embedded)"):
        assert verdicts[name] == "ok", groups["backends"]
    assert code == 0, groups
    assert [path.name for path in session.tree.glob("doctor*")] == []
    assert session.mounts() == []
    assert session.processes() == {}


def test_every_finding_that_is_not_fine_has_a_remedy(session: Session) -> None:
    _, groups = doctor(session)
    for group in groups.values():
        for finding in group:
            assert finding["detail"]
            assert bool(finding["remedy"]) is (finding["verdict"] != "ok"), finding


def test_it_says_what_root_inside_is(session: Session) -> None:
    finding = named(doctor(session)[1], "subordinate ids")
    if session.account.uid == 0:
        assert finding["detail"] == "root needs none"
    elif os.getuid() == 0 and PROGRAM.exists():  # the tests' own user may have some
        assert finding["verdict"] == "note"
        assert "becomes others, in appearance alone" in finding["detail"]


def test_it_works_where_there_is_no_bus(session: Session) -> None:
    variables = {"XDG_RUNTIME_DIR": "/nowhere", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}
    _, groups = doctor(session, variables=variables)
    finding = named(groups, "session bus")
    assert finding["verdict"] == "note"
    assert "images start without" in finding["detail"]
    assert "log in anew" in finding["remedy"]


def test_it_says_what_the_daemon_is(session: Session) -> None:
    assert "is started when it is needed" in named(doctor(session)[1], "daemon")["detail"]
    session.output("fimctl", "status")
    assert named(doctor(session)[1], "daemon")["detail"].startswith("it runs, version ")


def test_it_names_a_wrong_setting(session: Session) -> None:
    code, groups = doctor(session, variables={"FIMD_LINGER": "soon"})
    finding = named(groups, "settings")
    assert (code, finding["verdict"]) == (1, "problem")
    assert "FIMD_LINGER" in finding["detail"]


def test_it_tells_what_is_not_installed(session: Session) -> None:
    bare = session.directory / "work" / "bin"
    bare.mkdir()
    for program in ("sh", "test", "cmp", "unshare", "nsenter", "mount", "sleep", "fusermount3"):
        for place in ("/bin", "/usr/bin"):
            if (Path(place) / program).exists():
                (bare / program).symlink_to(Path(place) / program)
                break
    code, groups = doctor(session, variables={"PATH": f"{session.directory}/bin:{bare}"})
    assert code == 1
    assert named(groups, "bubblewrap")["remedy"] == "install the package bubblewrap"
    for name, package in (("overlayfs", "fuse-overlayfs"), ("unionfs", "unionfs-fuse")):
        finding = named(groups, f"overlay {name}")
        assert finding["verdict"] == "problem"
        assert f"install {package}" in finding["remedy"]
        assert "nothing stands in" in finding["remedy"]


def test_what_has_a_substitute_is_a_note(session: Session) -> None:
    bare = all_but(session.directory / "programs", "unionfs", "unionfs-fuse")
    code, groups = doctor(session, variables={"PATH": f"{session.directory}/bin:{bare}"})
    finding = named(groups, "overlay unionfs")
    assert (code, finding["verdict"]) == (0, "note")
    assert "overlayfs stands in" in finding["remedy"]


def test_it_says_what_forbids_user_namespaces(
    new_session: Callable[..., Session],
) -> None:
    session = new_session()
    if session.account.uid == 0:
        return  # root needs none
    helper = Path(__file__).resolve().parents[1] / "support" / "refusing.py"
    if os.getuid() != 0:
        return
    wrap = [sys.executable, str(helper), "setpriv", f"--reuid={session.account.uid}"]
    wrap += [f"--regid={session.account.gid}", "--clear-groups"]
    process = session.start(
        *wrap,
        *("fimctl", "doctor", "--json"),
        user=0,
        group=0,
        stdout=-1,
    )
    output, _ = process.communicate(timeout=30)
    groups = json.loads(output)
    assert named(groups, "sandbox")["verdict"] == "problem"
    assert named(groups, "user namespaces")["verdict"] == "problem"
    assert named(groups, "sandbox")["remedy"]


def test_it_shows_what_was_set_aside_until_that_is_pruned(session: Session, image: Path) -> None:
    session.output(image, "fim-exec", "true")
    os.kill(session.daemon(), signal.SIGKILL)
    (session.tree / "stacks" / "nonsense").write_text("")
    (session.tree / "instance" / "7x").symlink_to("/")
    session.output("fimctl", "status")
    shown = named(doctor(session)[1], "set aside")
    assert (shown["verdict"], shown["detail"].split()[0]) == ("note", "2")
    session.output("fimctl", "prune")
    assert named(doctor(session)[1], "set aside")["verdict"] == "ok"


def test_people_get_it_wrapped_to_their_terminal(session: Session) -> None:
    for columns in (80, 120):
        shown = session.output("fimctl", "doctor", variables={"COLUMNS": str(columns)})
        assert max(map(len, shown.splitlines())) <= columns
        assert "\033" not in shown
        assert shown.splitlines()[-1].endswith("0 problems")


def test_it_finds_what_a_crash_left(session: Session, image: Path) -> None:
    running = session.background(image, "sleep 60")
    os.kill(session.daemon(), signal.SIGKILL)
    _, groups = doctor(session)
    assert named(groups, "leftovers")["verdict"] == "note"
    assert "fimctl status" in named(groups, "leftovers")["remedy"]
    session.output("fimctl", "status")
    _, groups = doctor(session)
    assert named(groups, "leftovers")["verdict"] == "ok"
    running.kill()
