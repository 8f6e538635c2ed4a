"""Images in desktops' searches, and started by D-Bus, as GNOME Shell and KRunner call it."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from tests.support.desktop import PNG, set_up
from tests.support.session import Session, wait_for

NAME, ROOT = "org.flatimage.Fim1", "/org/flatimage/Fim1"
PROVIDER = DBusAddress(f"{ROOT}/SearchProvider", NAME, "org.gnome.Shell.SearchProvider2")
RUNNER = DBusAddress(f"{ROOT}/Runner", NAME, "org.kde.krunner1")


def gdbus(session: Session, path: str, method: str, *words: str, name: str = NAME) -> Any:
    call = ("gdbus", "call", "--session", "-d", name, "-o", path, "-m", method)
    return session.run(*call, *words)


def search(session: Session, *terms: str) -> list[str]:
    listed = "[" + ", ".join(f"'{term}'" for term in terms) + "]"
    method = f"{PROVIDER.interface}.GetInitialResultSet"
    done = gdbus(session, PROVIDER.object_path, method, f"@as {listed}")
    assert done.returncode == 0, done
    return re.findall(r"'([0-9a-f]{16})'", done.stdout)


def metas(session: Session, identifier: str) -> str:
    method = f"{PROVIDER.interface}.GetResultMetas"
    done = gdbus(session, PROVIDER.object_path, method, f"['{identifier}']")
    assert done.returncode == 0, done
    return str(done.stdout)


def listed(session: Session) -> dict[str, dict[str, Any]]:
    images = json.loads(session.output("fimctl", "desktop", "list", "--json"))
    return {os.path.basename(image["Path"]): image for image in images}


def marked(session: Session, image: Path, script: str) -> Path:
    """Let an image, when started, run a script that writes to a file; return the file."""
    mark = session.directory / "work" / "mark"
    session.output("fimctl", "boot", "set", image, "sh", "-c", script.format(mark=mark), "boot")
    return mark


@pytest.fixture
def asked(session: Session) -> Iterator[DBusConnection]:
    if session.account.uid != os.getuid():
        pytest.skip("a client of this process can't call another user's daemon")
    session.output("fimctl", "status")
    with open_dbus_connection(session.environment["DBUS_SESSION_BUS_ADDRESS"]) as connection:
        yield connection


def test_gnome_finds_what_was_run_with_its_icon_and_use(session: Session, image: Path) -> None:
    assert search(session, "app") == []
    set_up(session, image, "Löwe & Söhne")
    session.output(image, "fim-exec", "true")
    session.output(image, "fim-exec", "true")
    running = session.background(image, "sleep 30")
    [found] = search(session, "LÖWE", "söh")
    assert search(session, "app.flat") == [found]
    assert search(session, "löwe", "tiger") == []
    shown = metas(session, found)
    assert "'name': <'Löwe & Söhne'>" in shown
    assert "1 running, used 3 times" in shown
    [icon] = re.findall(r"'icon': <\('file', <'file://([^']*)'>\)>", shown)
    assert Path(icon).read_bytes() == PNG
    narrower = gdbus(
        *(session, PROVIDER.object_path, f"{PROVIDER.interface}.GetSubsearchResultSet"),
        *(f"['{found}', 'gone']", "['löwe']"),
    )
    assert narrower.stdout == f"(['{found}'],)\n"
    running.kill()
    wait_for(lambda: "running" not in metas(session, found), what="the end")
    assert "used 3 times" in metas(session, found)


def test_the_likeliest_comes_first_and_what_is_gone_not_at_all(
    session: Session, image: Path
) -> None:
    first, second, third = (
        session.adopt(image, f"{name}.flatimage") for name in ("first", "second", "third")
    )
    for one in (first, second, second, third):
        session.output(one, "fim-exec", "true")
    running = session.background(third, "sleep 30")

    def names() -> list[str]:
        shown = [metas(session, one) for one in search(session, "flatimage")]
        return re.findall(r"'name': <'(\w+)'>", "".join(shown))

    assert names() == ["third", "second", "first"]
    running.kill()
    wait_for(lambda: names() == ["third", "second", "first"], what="the latest of two")
    second.unlink()
    wait_for(lambda: names() == ["third", "first"], what="the end of one")
    assert "second.flatimage" not in listed(session)
    done = gdbus(session, RUNNER.object_path, f"{RUNNER.interface}.Run", "0123456789abcdef", "")
    assert f"{NAME}.Error.NotFound" in done.stderr


def test_uses_are_counted_once_whatever_becomes_of_the_daemon(
    session: Session, image: Path
) -> None:
    running = session.background(image, "sleep 60")
    for signal in ("KILL", "TERM"):
        pid = session.daemon()
        session.output("kill", f"-{signal}", str(pid))
        wait_for(lambda pid=pid: pid not in session.processes(), what="its end")
        facts = listed(session)["app.flatimage"]
        assert (facts["Uses"], facts["Running"]) == (1, 1)
    running.kill()
    wait_for(lambda: listed(session)["app.flatimage"]["Running"] == 0, what="the end")


def test_krunner_matches_and_runs(session: Session, image: Path) -> None:
    set_up(session, image, "My App")
    mark = marked(session, image, 'echo "$XDG_ACTIVATION_TOKEN" > {mark}; sleep 30')
    session.output(image, "fim-exec", "true")
    ask = ("busctl", "--user", "call", NAME, RUNNER.object_path, RUNNER.interface)
    said = session.output(*ask, "Match", "s", "my app")
    [identifier] = re.findall(r'1 "([0-9a-f]{16})" "My App" "/[^"]+\.png" 100 1 2 ', said)
    assert "used once" in said
    assert session.output(*ask, "Match", "s", "m") == "a(sssida{sv}) 0\n"
    assert session.output(*ask, "Actions") == "a(sss) 0\n"
    assert 'MinLetterCount" i 2' in session.output(*ask, "Config")
    session.output(*ask, "SetActivationToken", "s", "token-7")
    session.output(*ask, "Run", "ss", identifier, "")
    wait_for(lambda: mark.exists() and mark.read_text(), what="the program")
    assert mark.read_text() == "token-7\n"
    assert listed(session)["app.flatimage"]["Running"] == 1
    session.output(*ask, "Teardown")
    [instance] = session.objects("ps")
    session.output("fimctl", "stop", str(instance["Pid"]))


def test_gdbus_opens_an_image_which_outlives_the_daemon(session: Session, image: Path) -> None:
    odd = session.directory / "work" / "with space%.flatimage"
    image.rename(odd)
    mark = marked(session, odd, 'echo "$PWD $DESKTOP_STARTUP_ID" > {mark}; sleep 30')
    uri = f"file://{odd}".replace("%", "%25").replace(" ", "%20")
    platform = "{'desktop-startup-id': <'startup-9'>}"
    done = gdbus(session, ROOT, "org.freedesktop.Application.Open", f"['{uri}']", platform)
    assert done.stdout == "()\n", done
    wait_for(lambda: mark.exists() and mark.read_text(), what="the program")
    assert mark.read_text() == f"{session.directory}/home startup-9\n"
    [instance] = session.objects("ps")
    status = Path(f"/proc/{instance['Pid']}/stat").read_text().rpartition(")")[2].split()
    pid = session.daemon()
    assert int(status[1]) != pid, "the daemon is its parent"
    assert int(status[3]) != os.getsid(pid), "it is in the daemon's session"
    session.output("kill", "-KILL", str(pid))
    time.sleep(0.3)
    assert [one["Pid"] for one in session.objects("ps")] == [instance["Pid"]]
    session.output("fimctl", "stop", str(instance["Pid"]))


def test_what_cannot_be_opened_is_told_and_logged(session: Session, image: Path) -> None:
    application = "org.freedesktop.Application"

    def refused(method: str, *words: str) -> str:
        done = gdbus(session, ROOT, f"{application}.{method}", *words)
        assert done.returncode == 1
        return str(done.stderr)

    assert f"{NAME}.Error.NotAnImage" in refused("Open", "['file:///etc/hostname']", "@a{sv} {}")
    assert f"{NAME}.Error.NotFound" in refused("Open", "['file:///nowhere']", "@a{sv} {}")
    for uri in ("http://example.org/x", "file://elsewhere/x", "file:x", "", "file:///a%00b"):
        assert f"{NAME}.Error.InvalidArgument" in refused("Open", f"['{uri}']", "@a{sv} {}")
    assert f"{NAME}.Error.InvalidArgument" in refused("Activate", "@a{sv} {}")
    assert f"{NAME}.Error.InvalidArgument" in refused("ActivateAction", "x", "@av []", "@a{sv} {}")
    assert "launch failed" in session.output("fimctl", "logs", "/etc/hostname")

    (session.directory / "work" / ".app.flatimage.data").write_text("no directory")
    uri = f"['file://{image}']"
    assert f"{NAME}.Error.DataDirectory" in refused("Open", uri, "@a{sv} {}")
    assert "launch failed" in session.output("fimctl", "logs", image)


def test_a_file_that_was_tampered_with_is_checked(session: Session, image: Path) -> None:
    state = session.directory / "home" / ".local" / "state" / "fimd" / "images.json"
    good = {"path": str(image), "name": "good", "icon": "", "registered": False, "uses": 3}
    bad = [
        {"path": "relative", "name": "x"},
        {"path": "/a\0b", "name": "x"},
        {"path": 5, "name": "x"},
        {**good, "uses": -1},
        {**good, "uses": True},
        {**good, "icon": "../../../etc/passwd"},
        {**good, "last_used": "now"},
        {**good, "name": "x" * 300},
        {**good, "more": 1},
        "text",
        None,
    ]
    state.parent.mkdir(parents=True)
    for directory in (state.parent, *list(state.parents)[:3]):
        os.chown(directory, session.account.uid, session.account.gid)
    for text in (
        "{",
        "[]",
        '{"images": 5}',
        '{"images": ' + "[" * 5000,
        json.dumps({"images": bad}),
    ):
        state.write_text(text)
        assert listed(session) == {}
        session.output("fimctl", "shutdown")
    future = {**good, "last_used": 1e18}
    state.write_text(json.dumps({"images": [*bad, future]}))
    facts = listed(session)["app.flatimage"]
    assert (facts["Name"], facts["Uses"]) == ("good", 3)
    assert facts["LastUsed"] / 1e6 <= time.time() + 1
    session.output(image, "fim-exec", "true")
    assert listed(session)["app.flatimage"]["Uses"] == 4


def test_answers_come_from_memory_within_5_ms(
    session: Session, image: Path, asked: DBusConnection
) -> None:
    """As many images as are remembered, and searches while they are typed.

    What a call takes that asks for nothing is the machine's, and not counted.
    """
    state = session.directory / "home" / ".local" / "state" / "fimd" / "images.json"
    session.output("fimctl", "shutdown")
    peer = DBusAddress(ROOT, NAME, "org.freedesktop.DBus.Peer")
    images = [
        {"path": f"{image.parent}/image-{number}.flatimage", "name": f"Image {number}", "uses": 1}
        for number in range(256)
    ]
    for facts in images:
        os.link(image, str(facts["path"]))
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps({"images": images}))
    session.output("fimctl", "status")

    def call(address: DBusAddress, member: str, signature: str, *body: object) -> tuple[Any, float]:
        began = time.perf_counter()
        message = new_method_call(address, member, signature or None, body)
        reply = asked.send_and_get_reply(message, timeout=60)
        return reply.body and reply.body[0], time.perf_counter() - began

    taken, idle = [], []
    for typed in ("i", "im", "imag", "image", "image 2", "image 25", "image 255") * 3:
        terms = typed.split()
        found, seconds = call(PROVIDER, "GetInitialResultSet", "as", terms)
        shown, more = call(PROVIDER, "GetResultMetas", "as", found[:5])
        assert len(shown) == min(len(found), 5)
        matches, again = call(RUNNER, "Match", "s", typed)
        taken += [seconds, more, again]
        idle += [call(peer, "Ping", "")[1] for _ in range(3)]
    assert len(found) == len(matches) == 1, (found, matches)
    assert median(taken) - median(idle) < 0.005, (taken, idle)
