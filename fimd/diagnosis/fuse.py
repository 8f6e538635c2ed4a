"""The FUSE device; and fusermount3, by which a plain user mounts outside of the namespace."""

import os
import re
import shutil
import stat
from pathlib import Path

from fimd.diagnosis.finding import Finding, fine, note
from fimd.mounts import fuse_device
from fimd.mounts.process import CommandError, run

_NEEDED = "for 'fimctl dwarfs mount' alone"


async def check() -> list[Finding]:
    """Look at the device, and at what else 'fimctl dwarfs mount' takes."""
    return [_device(), await _fusermount(), _privileges()]


def _device() -> Finding:
    reason = fuse_device.missing()
    if reason is not None:
        detail, _, remedy = reason.partition(": ")
        return note("/dev/fuse", detail, remedy)
    mode = stat.S_IMODE(os.stat(fuse_device.DEVICE).st_mode)
    if mode & 0o666 != 0o666:
        return note("/dev/fuse", f"mode {mode:o}: other users may not open it", "chmod 0666 it")
    return fine("/dev/fuse", "can be opened")


async def _fusermount() -> Finding:
    program = shutil.which("fusermount3")
    if program is None:
        return note("fusermount3", f"not installed: {_NEEDED}", "install the package fuse3")
    facts = os.stat(program)
    if os.getuid() != 0 and not (facts.st_uid == 0 and facts.st_mode & stat.S_ISUID):
        remedy = f"have root do: chmod u+s {program}"
        return note("fusermount3", f"{program} is not setuid root: {_NEEDED}", remedy)
    try:
        said = (await run([program, "--version"], seconds=5.0)).decode(errors="replace")
    except CommandError as error:
        return note("fusermount3", f"{error}: {_NEEDED}", "install the package fuse3 anew")
    version = re.search(r"\d+(\.\d+)+", said)
    return fine("fusermount3", f"{program}, version {version[0] if version else 'unknown'}")


def _privileges() -> Finding:
    """Look whether setuid programs may gain anything here (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    status = Path("/proc/self/status").read_text()
    if os.getuid() != 0 and re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE):
        return note(
            "privileges",
            "NoNewPrivs is set here, so newuidmap can't give this user's subordinate ids",
            "start fimd outside of what set it: a sandbox, or a hardened unit",
        )
    return fine("privileges", "setuid programs work here")
