"""What systemd hears, read from a notify socket of the test's own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fimd.service.supervision import watchdog_interval
from tests.support.session import Session, wait_for


@pytest.fixture
def notified(new_session: Callable[..., Session]) -> Iterator[tuple[Session, list[str]]]:
    """A session whose daemon, started by the test, notifies the test."""
    session = new_session()
    address = session.directory / "work" / "notify"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(address))
        address.chmod(0o777)
        server.setblocking(False)
        variables = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "900000"}
        daemon = session.start(session.directory / "bin" / "fimd", variables=variables)

        def listen() -> list[str]:
            try:
                while True:
                    heard.extend(server.recv(4096).decode().splitlines())
            except BlockingIOError:
                return heard

        session.hear = listen  # type: ignore[attr-defined]
        yield session, heard
        daemon.terminate()
        wait_for(lambda: "STOPPING=1" in listen(), what="the farewell")
        daemon.wait(60)


def test_systemd_hears_of_readiness_life_and_contents(
    notified: tuple[Session, list[str]], busybox_image: Path
) -> None:
    session, heard = notified
    listen: Callable[[], list[str]] = session.hear  # type: ignore[attr-defined]
    wait_for(lambda: "READY=1" in listen(), what="readiness")
    assert "STATUS=0 instances, 0 layers, 0 mounts" in heard
    assert "org.flatimage.Fim1" in session.output("busctl", "--user", "list", "--acquired")
    wait_for(lambda: listen().count("WATCHDOG=1") >= 3, 15, "signs of life")
    image = session.adopt(busybox_image, "app.flatimage")
    running = session.background(image, "sleep 30")
    wait_for(lambda: "STATUS=1 instance, 1 layer, 2 mounts" in listen(), what="the status")
    running.kill()
    session.wait_until_clean()
    wait_for(lambda: listen()[-1] != "STATUS=1 instance, 1 layer, 2 mounts", what="the next status")


def test_what_a_daemon_uses_is_not_aged(session: Session, image: Path) -> None:
    if shutil.which("systemd-tmpfiles") is None or os.getuid() != 0:
        pytest.skip("it takes root and systemd-tmpfiles")
    running = session.background(image, "sleep 30")
    record = session.tree / "state" / "instance" / f"{running.pid}.json"
    config = session.directory / "work" / "age.conf"
    config.write_text(f"e {session.directory}/fim - - - 1us\n")
    subprocess.run(["systemd-tmpfiles", "--clean", config], check=True, capture_output=True)
    assert record.exists()
    assert (session.tree / "bin").exists()


def test_no_watchdog_means_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, pid, expected in (
        (None, None, None),
        ("3000000", None, 1.0),
        ("3000000", str(os.getpid()), 1.0),
        ("3000000", "1", None),
        ("nonsense", None, None),
        ("0", None, None),
    ):
        for name, given in (("WATCHDOG_USEC", value), ("WATCHDOG_PID", pid)):
            if given is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, given)
        assert watchdog_interval() == expected
