"""What starting an image costs beside a bare bubblewrap; how it grows with layers and instances.

    .venv/bin/python -m tests.bench.launch

Every figure is a median over several runs, measured in turn with what it is compared with.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.conftest import make_rootfs
from tests.support.account import own
from tests.support.session import Session, wait_for

BARE = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "true"]


def elapsed(action: Callable[[], object]) -> float:
    """Return how long something takes, in milliseconds."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def make_images(scratch: Path, busybox: Path) -> tuple[Path, Path]:
    """Make an image of one layer and one of ten."""
    rootfs = make_rootfs(scratch / "rootfs", busybox)
    layers = []
    for number in range(1, 10):
        tree = scratch / f"tree{number}"
        (tree / "opt").mkdir(parents=True)
        (tree / "opt" / str(number)).write_text(f"{number}\n" * 1000)
        layers += ["--layer", str(scratch / f"{number}.layer")]
        fimctl("dwarfs", "create", "-i", str(tree), "-o", layers[-1], "-l", "1", "--no-progress")
    one, ten = scratch / "one.flatimage", scratch / "ten.flatimage"
    fimctl("image", "create", "-l", "1", str(rootfs), str(one))
    fimctl("image", "create", "-l", "1", *layers, str(rootfs), str(ten))
    return one, ten


def fimctl(*words: str) -> None:
    """Run the client, outside of any session."""
    subprocess.run([sys.executable, "-P", "-m", "fimctl", *words], check=True, capture_output=True)


def launch_overhead(session: Session, image: Path, runs: int = 30) -> None:
    """Print what a start of mounted layers costs over bubblewrap alone."""
    keeper = session.background(image, "sleep 600")
    ours, bare = [], []
    for _ in range(runs):
        ours.append(elapsed(lambda: session.run(image, "fim-exec", "true")))
        bare.append(elapsed(lambda: session.run(*BARE)))
    keeper.kill()
    start, base = statistics.median(ours), statistics.median(bare)
    print(f"start, layers mounted: {start:.1f} ms; bwrap {base:.1f} ms; over it {start - base:.1f}")


def first_start(session: Session, one: Path, ten: Path, runs: int = 12) -> None:
    """Print how a start that has to mount ten layers compares with one that mounts one."""
    times: dict[Path, list[float]] = {one: [], ten: []}
    for _ in range(runs):
        for image in (one, ten):
            command = [str(image), "fim-exec", "true"]
            times[image].append(elapsed(partial(session.run, *command)))
            session.wait_until_clean()
    low, high = (statistics.median(times[image]) for image in (one, ten))
    print(f"first start: one layer {low:.1f} ms, ten {high:.1f} ms; ratio {high / low:.2f}")


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB, its private part of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(pid)


def many_instances(session: Session, image: Path, count: int = 20) -> None:
    """Print processes and the daemon's memory with many instances of a ten-layer image."""
    first = session.background(image, "sleep 600")
    [daemon] = [pid for pid, words in session.processes().items() if words.endswith("-m fimd ")]
    before = resident(daemon)
    others = [session.background(image, "sleep 600") for _ in range(count - 1)]
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in session.processes()]
    growth = (resident(daemon) - before) / (count - 1)
    layers = sum(name.startswith("layer-") for name in names)
    holders = sum(words == "sleep infinity " for words in session.processes().values())
    print(
        f"{count} instances: {layers} layer processes, {holders} overlay "
        f"holder, {names.count('bwrap')} bwrap; the daemon grows by {growth:.0f} KiB each"
    )
    for process in (first, *others):
        process.kill()
        process.wait()
    wait_for(lambda: session.objects("ps") == [], seconds=20)


def main() -> None:
    """Measure all, in a session of its own."""
    busybox = Path("/bin/busybox")
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        scratch = Path(name)
        one, ten = make_images(scratch, busybox)
        settings = {"FIMD_LINGER": "0"}
        with Session(scratch, own(), settings) as session:
            session.run("fimctl", "status")
            launch_overhead(session, one)
            launch_overhead(session, ten)
            first_start(session, one, ten)
            many_instances(session, ten)
    print(f"({os.cpu_count()} processors)")


if __name__ == "__main__":
    main()
