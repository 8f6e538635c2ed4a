import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from fimd.base import logs


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Leave the process's logging as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:], logging.root.level = handlers, level


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_has_fields_and_where_in_the_code(tmp_path: Path) -> None:
    logs.setup("info", file=str(tmp_path / "log"))
    logs.add_to_all({"fim_layer": "abc"})
    structlog.get_logger().info("layer mounted", path="/x")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    structlog.get_logger().debug("not worth it")
    first, second = entries(tmp_path / "log")
    assert (first["event"], first["fim_layer"], first["path"]) == ("layer mounted", "abc", "/x")
    assert first["code_file"] == __file__
    assert first["pid"] == os.getpid()
    assert (second["event"], second["level"]) == ("slow callback", "warning")


def test_an_exception_is_kept_with_its_trace(tmp_path: Path) -> None:
    logs.setup("info", file=str(tmp_path / "log"))
    try:
        raise ZeroDivisionError("by nought")
    except ZeroDivisionError:
        structlog.get_logger().exception("a call failed")
    [entry] = entries(tmp_path / "log")
    assert "ZeroDivisionError: by nought" in str(entry["exception"])


def test_the_level_can_change_while_loggers_are_in_use(tmp_path: Path) -> None:
    logs.setup("warning", file=str(tmp_path / "log"))
    log = structlog.get_logger()
    log.info("unheard")
    logs.set_level("debug")
    log.debug("heard")
    logging.getLogger("x").debug("heard too")
    assert [entry["event"] for entry in entries(tmp_path / "log")] == ["heard", "heard too"]


def test_the_file_never_fills_the_disk(tmp_path: Path) -> None:
    logs.setup("info", file=str(tmp_path / "log"))
    for number in range(3000):
        structlog.get_logger().info("a message", number=number, text="x" * 700)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1"]
    assert sum(path.stat().st_size for path in files) < 1_200_000
    assert entries(files[0])[-1]["number"] == 2999


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "log").symlink_to(victim)
    logs.setup("info", file=str(tmp_path / "log"))
    structlog.get_logger().info("a message")
    assert victim.read_text() == "precious"


def test_a_worker_logs_as_the_daemon_does(tmp_path: Path) -> None:
    logs.setup("debug", file=str(tmp_path / "log"))
    settings = json.loads(json.dumps(logs.inherited()))
    script = (
        "import json, logging, sys\nfrom fimd.base import logs\n"
        "logs.setup(**json.loads(sys.argv[1]))\nlogs.add_to_all({'fim_stack': 'abc'})\n"
        "logging.getLogger('x').debug('from below')\n"
    )
    command = [sys.executable, "-c", script, json.dumps(settings)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    [entry] = entries(tmp_path / "log")
    assert (entry["event"], entry["fim_stack"]) == ("from below", "abc")


def test_json_lines_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", json=True)
    structlog.get_logger().info("layer mounted", fim_layer="abc")
    entry = json.loads(capfd.readouterr().err)
    assert (entry["event"], entry["fim_layer"]) == ("layer mounted", "abc")


def test_no_colours_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.setup("info")
    structlog.get_logger().info("layer mounted", fim_layer="abc")
    said = capfd.readouterr().err
    assert "layer mounted" in said
    assert "\033" not in said
    assert "code_file" not in said


def test_the_journal_gets_fields_in_capitals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent to the journal, caught where systemd's library sends it."""
    sent: dict[str, str] = {}

    def sendv(*fields: bytes) -> None:
        sent.update(field.decode().split("=", 1) for field in fields)  # type: ignore[misc]

    monkeypatch.setattr("systemd.journal.sendv", sendv)
    facts = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
    (tmp_path / logs.FILE).write_text("old")
    logs.setup("info")
    logs.keep_in(str(tmp_path))
    structlog.get_logger().warning("layer mounted", fim_layer="abc", path="/x")
    assert sent["FIM_LAYER"] == "abc"
    assert sent["PRIORITY"] == "4"
    assert int(sent["CODE_LINE"]) > 0
    assert sent["CODE_FILE"] == __file__
    assert sent["MESSAGE"] == "layer mounted fim_layer=abc path=/x"
    assert all(name == name.upper() for name in sent)
    assert list(tmp_path.iterdir()) == []


def test_on_the_terminal_of_who_started_the_bus_nothing_is_said() -> None:
    ours, theirs = os.openpty()
    script = (
        "import sys; from fimd.base import logs; logs.leave_terminal();"
        "print('flood', file=sys.stderr); print('end', file=sys.stdout, flush=True)"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, stderr=theirs, stdout=subprocess.PIPE, check=True, timeout=30)
    os.set_blocking(ours, False)
    assert done.stdout == b"end\n"
    with pytest.raises(BlockingIOError):
        os.read(ours, 100)
    os.close(ours)
    os.close(theirs)
