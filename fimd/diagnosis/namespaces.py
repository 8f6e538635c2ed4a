"""User namespaces and bubblewrap: whether a sandbox can be made, and what forbids it."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.diagnosis.finding import Finding, Verdict, fine, note, problem
from fimd.launch import entry
from fimd.launch.sandbox import Sandbox
from fimd.mounts.holder import RANGES, subordinate_ids
from fimd.mounts.process import CommandError, run

_SWITCHES: Final = (
    ("user/max_user_namespaces", "0"),
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
)
_SECONDS: Final = 5.0
_FILTERS: Final = Path("/proc/sys/kernel/seccomp/actions_avail")
"""There where the kernel has filters of system calls (seccomp(2))."""


async def check() -> list[Finding]:
    """Make a namespace and a sandbox, and name the switches that forbid them."""
    sandbox = await _sandbox()
    findings = [await _bubblewrap(), sandbox, await _namespace()]
    works = all(finding.verdict is Verdict.OK for finding in findings[1:])
    findings.append(await asyncio.to_thread(_ids))
    findings += [_switch(name, bad, works=works) for name, bad in _SWITCHES]
    return [finding for finding in findings if finding.detail]


async def _bubblewrap() -> Finding:
    program = shutil.which("bwrap")
    if program is None:
        return problem("bubblewrap", "not installed", "install the package bubblewrap")
    try:
        said = await run([program, "--version"], seconds=_SECONDS)
    except CommandError as error:
        return problem("bubblewrap", str(error), "install the package bubblewrap anew")
    return fine("bubblewrap", f"{program}, version {said.decode(errors='replace').split()[-1]}")


async def _sandbox() -> Finding:
    try:
        await Sandbox().check()
    except UnsupportedError as error:
        detail, _, remedy = str(error).rpartition(": ")
        return problem("sandbox", detail, remedy)
    return fine("sandbox", "bubblewrap makes one")


async def _namespace() -> Finding:
    if os.getuid() == 0:
        return fine("user namespaces", "root needs none")
    try:
        await run(["unshare", "--user", "--map-root-user", "--mount", "true"], seconds=_SECONDS)
    except UnsupportedError as error:
        return problem("user namespaces", str(error), "install util-linux")
    except CommandError as error:
        return problem("user namespaces", str(error), "see the switches below, or ask for them")
    return fine("user namespaces", "can be made")


def _ids() -> Finding:
    """Tell of the ids that newuidmap(1) and newgidmap(1) can give this user's namespace."""
    if os.getuid() == 0:
        return fine("subordinate ids", "root needs none")
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return note(
            "subordinate ids",
            f"newuidmap is not installed: {_alone()}",
            "install the package uidmap",
        )
    counts = [sum(given.count for given in subordinate_ids(path)) for path in RANGES.values()]
    if not all(counts):
        return note(
            "subordinate ids",
            f"this user has none: {_alone()}",
            "have root do: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        )
    return fine("subordinate ids", f"{counts[0]} of users, {counts[1]} of groups")


def _alone() -> str:
    """Say what root inside is without them."""
    if entry.PROGRAM.is_file() and _FILTERS.exists():
        return "root inside gives files to others, and becomes others, in appearance alone"
    return "root inside can't give files to other users"


def _switch(name: str, bad: str, *, works: bool) -> Finding:
    try:
        value = Path("/proc/sys", name).read_text().strip()
    except OSError:
        return fine(name, "")
    shown = f"{name.replace('/', '.')} = {value}"
    if value != bad or os.getuid() == 0:
        return fine("sysctl", shown)
    if name.startswith("kernel/apparmor"):
        remedy = (
            "load the AppArmor profile that fimd's Debian package has (packaging/apparmor/fimd): "
            "apparmor_parser -r /etc/apparmor.d/fimd; or set it to 0"
        )
        # a profile may allow it to just these programs
        return note("sysctl", shown, remedy) if works else problem("sysctl", shown, remedy)
    return problem("sysctl", shown, f"have root set it: sysctl -w {name.replace('/', '.')}=1")
