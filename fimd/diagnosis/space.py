"""Disk space where layers and changes go, and what a crash may have left."""

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from fimd.base import records
from fimd.base.errors import ProcessGoneError
from fimd.base.places import find_global
from fimd.commits.lost import LOST
from fimd.diagnosis.finding import Finding, fine, note, problem
from fimd.mounts.process import start_time
from fimd.mounts.table import below

_LITTLE: Final = 1 << 30
_NOTHING: Final = 64 << 20


async def check(data: str | None = None) -> list[Finding]:
    """Look at the file systems of the runtime tree and of the home, and for leftovers."""
    base = find_global()
    home = os.environ.get("HOME", "/")
    return [
        _space("runtime tree", base),
        _space("home", home),
        await asyncio.to_thread(_leftovers, Path(base, "app", f"u{os.getuid()}")),
        await asyncio.to_thread(_lost, Path(base, "app", f"u{os.getuid()}")),
        *([] if data is None else [await asyncio.to_thread(_lost_changes, data)]),
    ]


def _space(name: str, path: str) -> Finding:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    facts = os.statvfs(path)
    free, files = facts.f_bavail * facts.f_frsize, facts.f_favail
    detail = f"{free / 2**30:.1f} GiB are free in {path}"
    if free < _NOTHING or (facts.f_files and files < 1000):
        return problem(f"space: {name}", f"{detail}, and {files} files", "make room there")
    if free < _LITTLE:
        return note(f"space: {name}", detail, "make room there before a commit")
    return fine(f"space: {name}", detail)


def _leftovers(tree: Path) -> Finding:
    """Look for mounts and instances that no daemon holds; the next one removes or adopts them."""
    holder = (records.read(str(tree / "state" / "holder.json")) or {}).get("pid")
    # those of a doctor who is at work are no leftovers
    mounts = [
        mount
        for mount in below(str(tree), holder if isinstance(holder, int) else "self")
        if "/doctor." not in mount.mount_point
    ]
    if _running(tree):
        return fine("leftovers", f"none: a daemon holds the {len(mounts)} mounts of {tree}")
    dead = 0
    for record in tree.glob("state/instance/*.json"):
        facts = records.read(str(record))
        dead += facts is None or not _lives(facts)
    if mounts or dead:
        detail = f"{len(mounts)} mounts and {dead} ended instances in {tree}, and no daemon"
        return note("leftovers", detail, "run 'fimctl status': the daemon it starts clears them up")
    return fine("leftovers", "none")


def _lost(tree: Path) -> Finding:
    """Look for what was set aside since it made no sense or could not be removed."""
    kept = [*tree.glob("lost/*"), *tree.glob("lost.*")]
    if not kept:
        return fine("set aside", "nothing")
    detail = f"{len(kept)} things in {tree / 'lost'} made no sense, or could not be removed"
    return note("set aside", detail, "look at them, and run 'fimctl prune' to remove them")


def _lost_changes(data: str) -> Finding:
    """Look for what could not be removed from a data directory."""
    place = os.path.join(data, "tmp")
    try:
        kept = sorted(name for name in os.listdir(place) if name.startswith(LOST))
    except OSError:
        kept = []
    if not kept:
        return fine("lost changes", "none")
    detail = f"{', '.join(kept)} in {place} could not be removed, after a commit or a start"
    return note("lost changes", detail, "run 'fimctl prune IMAGE' to try again")


def _lives(facts: dict[str, Any]) -> bool:
    """Tell whether the process of an instance's record is there, and no other of its number."""
    try:
        return bool(start_time(int(facts["pid"])) == facts["process_started"])
    except (ProcessGoneError, KeyError, TypeError, ValueError):
        return False


def _running(tree: Path) -> bool:
    """Tell whether the process that took the tree's lock is alive."""
    try:
        pid = int((tree / "state" / "lock").read_text())
        return b"fimd" in Path("/proc", str(pid), "cmdline").read_bytes()
    except (OSError, ValueError):
        return False
