"""Start and end instances by D-Bus, again and again, and print what the daemon holds meanwhile.

Arguments: the image, the daemon's process, the number of cycles, how many are under way at once.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from fimctl.daemon import Daemon

SAMPLES = 10
LOOKS = 10


def cycle(daemon: Daemon, image: str) -> None:
    """One instance, keyed by a process that ends once it is started."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        options = {"pid": ("u", process.pid)}
        daemon.manager("StartInstance", "aya{sv}", (os.fsencode(image), options))
    finally:
        process.kill()
        process.wait()


def held(pid: int) -> tuple[int, int]:
    """The daemon's descriptors, and KiB of its own in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return len(os.listdir(f"/proc/{pid}/fd")), int(anonymous.split()[1])


def at_rest(pid: int) -> tuple[int, int]:
    """What it holds once the last of its processes have ended, which may take a moment."""
    found = held(pid)
    for _ in range(LOOKS):
        time.sleep(0.05)
        found = min(found, held(pid))
    return found


def many(image: str, count: int) -> None:
    """What one thread does."""
    with Daemon() as daemon:
        for _ in range(count):
            cycle(daemon, image)


def main(image: str, pid: int, cycles: int, at_once: int) -> None:
    """Print a line for each tenth of the cycles, once all of its instances have ended."""
    for _ in range(SAMPLES):
        count = cycles // SAMPLES // at_once
        threads = [threading.Thread(target=many, args=(image, count)) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Daemon() as daemon:
            while any("Instance" in item for item in daemon.objects().values()):
                pass
            daemon.manager("Prune", "a{sv}", ({},))
        print(*at_rest(pid), flush=True)


main(sys.argv[1], *map(int, sys.argv[2:]))
