"""Many instances: at once while the daemon is killed, and one after the other in its long life."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import PROJECT, Account
from tests.support.overlays import INSTALLED
from tests.support.session import Session, wait_for

OVERLAYS = (*INSTALLED, "bwrap")
EACH = 5
WORK = r"""
n=0
while :; do
    n=$((n+1)); echo $n >> "/count-$1" || echo "no write of $n" >> "/errors-$1"
    read -r in_image < /etc/release || echo "no read at $n" >> "/errors-$1"
    read -r in_layer < /shared/file || echo "no read at $n" >> "/errors-$1"
    [ "$in_image$in_layer" = smallcontent ] || echo "read '$in_image$in_layer'" >> "/errors-$1"
    sleep 0.1
done
"""


@pytest.mark.timeout(300)
def test_twenty_instances_go_on_without_a_gap_while_the_daemon_is_killed_and_comes_back(
    session: Session, busybox_image: Path
) -> None:
    session.output("sh", "-c", "mkdir -p source/shared; echo content > source/shared/file")
    session.output("fimctl", "layer", "create", "source", "shared.layer")
    variables = {"FIM_LAYERS": str(session.directory / "work" / "shared.layer")}
    uppers, programs = [], []
    for number, overlay in enumerate(OVERLAYS):
        image = session.adopt(busybox_image, f"{number}.flatimage")
        session.output(image, "fim-overlay", "set", overlay)
        for name in range(EACH):
            script = f"set -- {name}; {WORK}"
            programs.append(session.background(image, script, variables=variables))
            uppers.append(image.with_name(f".{image.name}.data") / "root")

    def counts() -> list[int]:
        return [
            len((upper / f"count-{number % EACH}").read_bytes().splitlines())
            for number, upper in enumerate(uppers)
        ]

    def all_go_on(when: str) -> None:
        before = counts()
        wait_for(
            lambda: all(now >= was + 3 for was, now in zip(before, counts(), strict=True)),
            seconds=30,
            what=f"the programs' progress {when}",
        )

    wait_for(lambda: all((u / f"count-{n % EACH}").exists() for n, u in enumerate(uppers)))
    all_go_on("under the first daemon")
    for _ in range(2):
        first = session.daemon()
        os.kill(first, signal.SIGKILL)
        all_go_on("without a daemon")
        instances = session.objects("ps")  # starts the next one
        assert session.daemon() != first
        assert {item["Pid"] for item in instances} == {program.pid for program in programs}
        assert {item["State"] for item in instances} == {"running"}
        references = sorted(layer["References"] for layer in session.objects("layers"))
        assert references == [EACH] * len(OVERLAYS) + [EACH * len(OVERLAYS)]
        all_go_on("under the next daemon")

    for program in programs:
        assert program.poll() is None
        program.kill()
        program.wait()
    wait_for(lambda: session.objects("ps") == [], seconds=30, what="every instance's release")
    session.wait_until_clean(30)
    for number, upper in enumerate(uppers):
        assert not (upper / f"errors-{number % EACH}").exists()
        written = (upper / f"count-{number % EACH}").read_text().split()
        assert written == [str(count) for count in range(1, len(written) + 1)]


@pytest.mark.parametrize(
    "cycles", [200, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_what_the_daemon_holds_does_not_grow(
    new_session: Callable[..., Session], account: Account, busybox_image: Path, cycles: int
) -> None:
    session = new_session(FIMD_LINGER="0", PYTHONPATH=account.environment.get("PYTHONPATH", ""))
    image = session.adopt(busybox_image, "app.flatimage")
    session.output(image, "fim-exec", "true")
    script = (PROJECT / "tests" / "support" / "cycles.py").read_text()
    began = time.monotonic()
    process = session.start(
        *(account.python, "-P", "-c", script, image, str(session.daemon()), str(cycles), "4"),
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=1700)
    assert process.returncode == 0
    print(f"{cycles} cycles in {time.monotonic() - began:.1f} s: descriptors, KiB")
    print(output.decode())  # shown where the test fails
    samples = [tuple(map(int, line.split())) for line in output.decode().splitlines()]
    descriptors, memory = zip(*samples, strict=True)
    assert max(descriptors[1:]) <= descriptors[0] + 2  # a bus connection that is closing
    # the second half against the first, which fills caches and the allocator's pools
    assert memory[-1] - memory[len(memory) // 2] < 1024
    session.wait_until_clean()
