"""fimctl settings, logs and setup, where systemd runs no session."""

import json
import os
import re
import time
from pathlib import Path

from tests.support.overlays import needs_unionfs
from tests.support.session import Session, wait_for


def test_settings_are_shown_with_their_origins(session: Session) -> None:
    shown = session.output("fimctl", "settings")
    assert re.search(r"^linger +\d\S* +FIMD_LINGER$", shown, re.MULTILINE)
    assert re.search(r"^cache +128 +default$", shown, re.MULTILINE)
    assert "How much of one embedded layer's" in shown
    facts = json.loads(session.output("fimctl", "settings", "--json"))
    assert facts["linger"]["origin"] == "FIMD_LINGER"
    assert facts["cache"] == {"value": 128, "origin": "default"}


def test_a_wrong_setting_is_refused_by_name(session: Session) -> None:
    file = session.directory / "home" / ".config" / "fimd" / "fimd.toml"
    file.parent.mkdir(parents=True)
    file.write_text("cash = 1\n")
    done = session.run("fimctl", "settings")
    assert done.returncode == 125
    assert done.stderr.startswith(f"fimctl: {file}: there is no setting 'cash'")


def test_sighup_takes_over_the_file(session: Session) -> None:
    session.output("fimctl", "status")
    file = session.directory / "home" / ".config" / "fimd" / "fimd.toml"
    file.parent.mkdir(parents=True)
    file.write_text('log_level = "debug"\ncache = 7\n')
    pid = session.daemon()
    session.output("kill", "-HUP", str(pid))

    def level() -> object:
        return json.loads(session.output("fimctl", "settings", "--json"))["log_level"]

    wait_for(lambda: level() == {"value": "debug", "origin": str(file)}, what="the new level")
    shown = session.output("fimctl", "settings")
    assert "cache = 7 in the file waits until fimd reloads, or starts again" in shown
    assert "setting waits for a restart" in session.output("fimctl", "logs")


def test_logs_are_those_of_an_instance_or_an_image(
    session: Session, image: Path, busybox_image: Path
) -> None:
    other = session.adopt(busybox_image, "other.flatimage")
    first = session.background(image, "sleep 30")
    session.output(other, "fim-exec", "true")
    everything = session.output("fimctl", "logs")
    assert "serving" in everything
    assert str(other) in everything
    of_image = session.output("fimctl", "logs", image)
    assert "layer mounted" in of_image
    assert "stack mounted" in of_image
    assert "instance started" in of_image
    assert str(other) not in of_image
    assert "serving" not in of_image
    of_instance = [
        json.loads(line)
        for line in session.output("fimctl", "logs", "--json", str(first.pid)).splitlines()
    ]
    assert {"instance started"} <= {entry["event"] for entry in of_instance}
    assert {entry["fim_instance"] for entry in of_instance if "fim_instance" in entry} == {
        str(first.pid)
    }
    last = session.output("fimctl", "logs", "-n", "1")
    assert len(last.splitlines()) == 1


def test_logs_have_what_workers_say(session: Session, image: Path) -> None:
    """A layer whose worker is killed is told of by the daemon, with the layer's field."""
    session.background(image, "sleep 30")
    for pid in session.named("layer-"):
        session.output("kill", "-KILL", str(pid))
    wait_for(lambda: "died" in session.output("fimctl", "logs", image), what="the news")


def test_logs_follow(session: Session, image: Path) -> None:
    session.output("fimctl", "status")
    target = session.directory / "work" / "followed"
    with target.open("wb") as file:
        follower = session.start("fimctl", "logs", "--follow", image, stdout=file)
    session.output(image, "fim-exec", "true")
    wait_for(lambda: "instance ended" in target.read_text(), what="the last message")
    follower.terminate()


def test_logs_of_nothing_are_refused(session: Session) -> None:
    done = session.run("fimctl", "logs", "/nowhere")
    assert (done.returncode, done.stderr) == (
        125,
        "fimctl: /nowhere is neither an instance's number nor a file\n",
    )


COMPLAINER = """\
exec 3<>"$0"  # as the program itself: whether anybody reads it or not
while sleep 0.1 && kill -0 "$1"; do echo "disk of -f: number $((number += 1))" >&3; done
"""


@needs_unionfs
def test_logs_have_what_mount_programs_say_even_without_a_daemon(
    session: Session, image: Path, busybox_image: Path
) -> None:
    """A program in whose name somebody complains."""
    session.output(image, "fim-overlay", "set", "unionfs")
    running = session.background(image, "while cat /etc/release; do sleep 0.2; done")
    program = session.one_named("unionfs")
    output = os.readlink(f"/proc/{program}/fd/2")
    session.start("busybox", "sh", "-c", COMPLAINER, output, str(program))
    other = session.adopt(busybox_image, "other.flatimage")
    session.output(other, "fim-exec", "true")

    def numbers(*subject: str | Path) -> list[int]:
        said = session.output("fimctl", "logs", *subject)
        return [int(number) for number in re.findall(r"disk of -f: number (\d+)", said)]

    wait_for(lambda: len(numbers(image)) > 2, what="the complaints")
    assert numbers(str(running.pid))
    assert not numbers(other)
    entry = next(
        entry
        for line in session.output("fimctl", "logs", "--json", image).splitlines()
        if "disk of" in (entry := json.loads(line))["event"]
    )
    assert len(entry["fim_stack"]) == 16
    assert entry["program"] == "unionfs"

    daemon = session.daemon()
    before = numbers(image)[-1]
    session.output("kill", "-KILL", str(daemon))
    time.sleep(0.5)
    session.output("fimctl", "status")
    wait_for(lambda: numbers(image)[-1] > before + 5, what="what was said meanwhile")
    seen = numbers(image)
    assert seen == list(range(1, len(seen) + 1))
    assert running.poll() is None


def test_logs_have_what_an_embedded_worker_says_on_its_standard_error(
    session: Session, image: Path
) -> None:
    """A dying interpreter, as libfuse, knows nothing of a log."""
    session.background(image, "sleep 30")
    [layer] = session.objects("layers")
    pid = session.one_named("layer-")
    pipe = os.readlink(f"/proc/{pid}/fd/2")
    assert os.path.basename(pipe).startswith("fim_layer.")
    session.output("sh", "-c", f"echo a word of libfuse > {pipe}")
    wait_for(lambda: "a word of libfuse" in session.output("fimctl", "logs", image))
    assert layer["State"] == "mounted"
