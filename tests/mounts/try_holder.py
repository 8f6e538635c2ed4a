"""Does things with a holder as the account that it runs as, and prints what came of it as JSON."""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC221, ASYNC240 - nothing else runs in this loop

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fimd.mounts import holder
from fimd.mounts.holder import Holder
from fimd.mounts.process import start_time


async def start(*_: str) -> dict[str, Any]:
    """Start one; tell its ids, and whether a file can be given to another user in it."""
    made = await holder.start()
    try:
        file = Path(os.environ["SCRATCH"], "file")
        file.write_text("")
        given = subprocess.run([*made.join, "chown", "6:6", file], check=False)
        subprocess.run([*made.join, "chown", "0:0", file], check=False)
        shown = subprocess.run([*made.join, "id", "-u"], check=True, capture_output=True)
        return {"ids": made.ids, "given": given.returncode == 0, "id": int(shown.stdout)}
    finally:
        await made.process.stop()


async def known(*_: str) -> dict[str, Any]:
    """Tell which records are believed."""
    made = await holder.start()
    facts: dict[str, Any] = dict(made.record())
    other = subprocess.Popen(["sleep", "60"])
    records: dict[str, dict[str, Any] | None] = {
        "none": None,
        "true": facts,
        "time": {**facts, "process_started": facts["process_started"] + 1},
        "outside": {**facts, "pid": other.pid, "process_started": start_time(other.pid)},
        "self": {**facts, "pid": os.getpid(), "process_started": start_time(os.getpid())},
        "text": {**facts, "pid": str(facts["pid"])},
        "init": {**facts, "pid": 1, "process_started": start_time(1)},
        "empty": {},
    }
    answers = {name: believed(record) for name, record in records.items()}
    other.kill()
    other.wait()
    await made.process.stop()
    answers["ended"] = believed(facts)
    return answers


async def revive(*_: str) -> dict[str, Any]:
    """Kill one, and start another in its namespace by way of a process that is in it."""
    made = await holder.start()
    child = subprocess.Popen([*made.join, "sleep", "60"])
    while namespace(child.pid) == namespace(os.getpid()):
        await asyncio.sleep(0.01)
    before = namespace(made.process.pid)
    await made.process.stop()
    again = await holder.revive(holder.namespaces_of(child.pid))
    answer = {"same": namespace(again.process.pid) == before, "ids": again.ids}
    child.kill()
    child.wait()
    await again.process.stop()
    return answer


def believed(record: dict[str, Any] | None) -> bool:
    """Whether a record is taken for a holder's."""
    found: Holder | None = holder.known(record)
    if found is not None:
        found.process.close()
    return found is not None


def namespace(pid: int) -> str:
    """The mount namespace of a process."""
    return os.readlink(f"/proc/{pid}/ns/mnt")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))))
