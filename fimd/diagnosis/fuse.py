"""The FUSE device, and the program by which a plain user mounts."""

import os
import re
import shutil
import stat
from pathlib import Path

from fimd.diagnosis.finding import Finding, fine, note, problem
from fimd.mounts import fuse_device
from fimd.mounts.process import CommandError, run


async def check() -> list[Finding]:
    """Look at the device, fusermount3, and what keeps it from working."""
    return [_device(), await _fusermount(), _privileges(), _table(), _limit()]


def _device() -> Finding:
    reason = fuse_device.missing()
    if reason is not None:
        detail, _, remedy = reason.partition(": ")
        return problem("/dev/fuse", detail, remedy)
    mode = stat.S_IMODE(os.stat(fuse_device.DEVICE).st_mode)
    if mode & 0o666 != 0o666:
        return note("/dev/fuse", f"mode {mode:o}: other users may not open it", "chmod 0666 it")
    return fine("/dev/fuse", "can be opened")


async def _fusermount() -> Finding:
    program = shutil.which("fusermount3")
    if program is None:
        return problem("fusermount3", "not installed", "install the package fuse3")
    facts = os.stat(program)
    if os.getuid() != 0 and not (facts.st_uid == 0 and facts.st_mode & stat.S_ISUID):
        remedy = f"have root do: chmod u+s {program}"
        return problem("fusermount3", f"{program} is not setuid root", remedy)
    try:
        said = (await run([program, "--version"], seconds=5.0)).decode(errors="replace")
    except CommandError as error:
        return problem("fusermount3", str(error), "install the package fuse3 anew")
    version = re.search(r"\d+(\.\d+)+", said)
    return fine("fusermount3", f"{program}, version {version[0] if version else 'unknown'}")


def _privileges() -> Finding:
    """Look whether setuid programs may gain anything here (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    status = Path("/proc/self/status").read_text()
    if os.getuid() != 0 and re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE):
        return problem(
            "privileges",
            "NoNewPrivs is set here, so the setuid fusermount3 can't mount",
            "start fimd outside of what set it: a sandbox, or a hardened unit",
        )
    return fine("privileges", "setuid programs work here")


def _table() -> Finding:
    """Look for /etc/mtab, without which fusermount3 does not unmount for a plain user."""
    if os.access("/etc/mtab", os.R_OK):
        return fine("/etc/mtab", "can be read")
    if shutil.which("umount") is not None:
        return fine("/etc/mtab", "not there; umount stands in for fusermount3, which needs it")
    remedy = "install the package mount"
    return problem("/etc/mtab", "not there, so fusermount3 can't unmount", remedy)


def _limit() -> Finding:
    count, limit = fuse_device.mounts()
    if limit is None:
        return fine("mount_max", f"{count} FUSE mounts are in use, and there is no limit")
    detail = f"{count} of {limit} FUSE mounts are in use"
    if os.getuid() != 0 and count > limit * 0.8:
        remedy = f"set mount_max in {fuse_device.CONFIGURATION} higher"
        return note("mount_max", detail, remedy)
    return fine("mount_max", detail)
