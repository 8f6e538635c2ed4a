"""Instances come, go and are killed at random, and so are fimd's own processes."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.overlays import INSTALLED
from tests.support.program import program_of
from tests.support.session import Session, wait_for

IMAGES = 10
AT_ONCE = 6


@dataclass
class Churn:
    """A random walk over images and processes. `written` is what programs said they had stored."""

    session: Session
    images: list[Path]
    dice: random.Random
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    refused: int = 0

    def start(self, number: int) -> None:
        """Start a program that stores a file, says so, and goes on for a random while."""
        image = self.dice.choice(self.images)
        seconds = self.dice.choice(["0", "0.1", "0.5", "30"])
        script = f"echo {number} > /file{number} && sync && echo stored; exec sleep {seconds}"
        process = self.session.start(
            image, "fim-exec", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        if said == b"stored\n":
            self.written.append(image.parent / f".{image.name}.data" / "root" / f"file{number}")
        else:
            self.refused += 1
        self.running.append(process)

    def end_one(self) -> None:
        """Kill a program's client, its whole group, or the program under it."""
        process = self.running.pop(self.dice.randrange(len(self.running)))
        victim = process.pid
        if self.dice.random() < 0.3:
            with suppress(OSError):
                victim = program_of(process.pid) or victim
        with suppress(ProcessLookupError):
            os.kill(victim, self.dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        if process.poll() is None:
            process.kill()
        process.wait()

    def kill_one_of_ours(self) -> None:
        """Kill the daemon, its template, a layer's worker, an overlay or a holder."""
        ours = self.session.daemons() | {
            pid
            for pid, words in self.session.processes().items()
            if words.startswith("sleep infinity")
            or any(name in words for name in ("mounts.template", "unionfs", "fuse-overlayfs"))
        }
        if ours:
            with suppress(ProcessLookupError):
                os.kill(self.dice.choice(sorted(ours)), signal.SIGKILL)

    def end_all(self) -> None:
        """End what still runs."""
        while self.running:
            self.end_one()


def descriptors(session: Session) -> int:
    """How many descriptors the daemon has."""
    daemon = session.daemon()
    return len(os.listdir(f"/proc/{daemon}/fd"))


@pytest.mark.parametrize(
    "starts", [50, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_churn_leaves_nothing_behind_and_loses_nothing(
    new_session: Callable[..., Session], account: Account, busybox_image: Path, starts: int
) -> None:
    session = new_session()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown where the test fails
    images = [session.adopt(busybox_image, f"{number}.flatimage") for number in range(IMAGES)]
    for number, image in enumerate(images):
        session.output(image, "fim-overlay", "set", INSTALLED[number % len(INSTALLED)])
    churn = Churn(session, images, random.Random(seed))
    session.objects("ps")
    session.wait_until_clean()
    before = descriptors(session)
    for number in range(starts):
        churn.start(number)
        while len(churn.running) > AT_ONCE or (churn.running and churn.dice.random() < 0.3):
            churn.end_one()
        if churn.dice.random() < 0.15:
            churn.kill_one_of_ours()
    churn.end_all()
    wait_for(lambda: session.objects("ps") == [], seconds=30, what="every instance's release")
    session.wait_until_clean(30)

    assert len(churn.written) >= starts * 0.6, f"{churn.refused} of {starts} did not start"
    missing = [path for path in churn.written if not path.exists()]
    assert missing == []
    for image in images:  # and every image still runs
        assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    session.wait_until_clean(30)
    deadline = time.monotonic() + 5
    while descriptors(session) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert descriptors(session) <= before
