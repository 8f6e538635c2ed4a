"""The holder: a process that keeps the user's namespace, in which everything is mounted.

As podman's pause process it does nothing but live. It is started in a user namespace in which the
user is 0, and a mount namespace that gets what is later mounted on the host, and whatever is
mounted in it stays in it. It outlives the daemon; the next one finds it by its record. For root of
the machine it is a mount namespace alone.

Where /etc/subuid and /etc/subgid give the user a range, and newuidmap(1) and newgidmap(1) are
installed, 1 to 65535 are mapped as well, as far as the range goes (user_namespaces(7), subuid(5)).
"""

import asyncio
import fcntl
import os
import pwd
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from fimd.base.errors import FimError, ProcessGoneError, UnsupportedError
from fimd.base.system_calls import CLONE_NEWNS, CLONE_NEWUSER
from fimd.mounts.pipes import readable
from fimd.mounts.process import Process, run

log = structlog.get_logger(__name__)

MOST_IDS: Final = 65536
"""Ids that are mapped at most: what distributions use, 0 to 65535."""
_SECONDS: Final = 10.0
_NS_GET_PARENT: Final = 0xB702  # ioctl_ns(2)
RANGES: Final = {"uid": Path("/etc/subuid"), "gid": Path("/etc/subgid")}
_LARGEST_FILE: Final = 1 << 20
_SCRIPT: Final = "echo ready && exec sleep infinity"
_PROFILE: Final = "fimd an AppArmor profile with 'userns,' as its Debian package does,"
_SWITCHES: Final = {
    "/proc/sys/user/max_user_namespaces": ("0", "set the sysctl user.max_user_namespaces above 0"),
    "/proc/sys/kernel/unprivileged_userns_clone": (
        "0",
        "set the sysctl kernel.unprivileged_userns_clone to 1",
    ),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "give {} or set the sysctl kernel.apparmor_restrict_unprivileged_userns to 0",
    ),
}


@dataclass(frozen=True)
class IdRange:
    """A range of subordinate ids (subuid(5))."""

    start: int
    count: int


@dataclass(frozen=True)
class Holder:
    """The process, and what its namespace is like."""

    process: Process
    ids: int
    """How many ids are mapped: 1 where the user has no subordinate ones, or is root."""

    @property
    def join(self) -> tuple[str, ...]:
        """The beginning of a command that is run in the namespace, from the same directory."""
        user = () if os.getuid() == 0 else ("--user", "--preserve-credentials")
        return ("nsenter", "--target", str(self.process.pid), "--mount", *user, "--wd=.", "--")

    @property
    def links(self) -> tuple[str, str]:
        """Links to its user namespace, "" for the machine's, and to its mount namespace."""
        links = namespaces_of(self.process.pid)
        return "" if os.getuid() == 0 else links[CLONE_NEWUSER], links[CLONE_NEWNS]

    def record(self) -> dict[str, int]:
        """What a later daemon finds it by."""
        return {"pid": self.process.pid, "process_started": self.process.started, "ids": self.ids}

    def open_namespaces(self) -> list[tuple[int, int]]:
        """Open its namespaces in the order of joining them: descriptors, with setns(2)'s kinds.

        Raises ProcessGoneError.
        """
        opened: list[tuple[int, int]] = []
        try:
            for kind, path in namespaces_of(self.process.pid).items():
                if kind != CLONE_NEWUSER or os.getuid() != 0:
                    opened.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind))
        except OSError as error:
            for descriptor, _ in opened:
                os.close(descriptor)
            raise ProcessGoneError(f"the holder (process {self.process.pid}) is gone") from error
        return opened


async def start() -> Holder:
    """Make a namespace and the process that holds it. Raises UnsupportedError, with the remedy."""
    if os.getuid() == 0:
        return Holder(await _unshare("--mount"), 1)
    ranges = await asyncio.to_thread(_ranges)
    if ranges is not None:
        process = await _unshare("--user", "--mount")
        try:
            return Holder(process, await _map_ranges(process.pid, *ranges))
        except FimError as error:
            log.warning("subordinate ids can't be used", reason=str(error))
            await process.stop()
        except BaseException:
            await process.stop()
            raise
    process = await _unshare("--user", "--mount")
    try:
        _map_own(process.pid)
    except BaseException as error:
        await process.stop()
        if isinstance(error, OSError):
            reason = f"its ids can't be mapped ({error.strerror})"
            raise UnsupportedError(_refusal(reason)) from error
        raise
    return Holder(process, 1)


def known(facts: dict[str, object] | None) -> Holder | None:
    """Return the holder that a record names, None where it has ended.

    Nothing but the process itself is believed: its user namespace has to be a child of this one,
    as only a process of this user makes it.
    """
    if facts is None:
        return None
    pid, started = facts.get("pid"), facts.get("process_started")
    if not isinstance(pid, int) or not isinstance(started, int) or pid <= 1:
        return None
    process = Process.known(pid, started)
    if process is None:
        return None
    try:
        if not is_in_a_namespace(pid):
            process.close()
            return None
        return Holder(process, _mapped(pid))
    except OSError:
        process.close()
        return None


async def revive(namespaces: Mapping[int, str]) -> Holder:
    """Start a holder in namespaces whose holder has ended: links to them, by setns(2)'s kinds.

    Raises FimError.
    """
    joined = ["nsenter", f"--mount={namespaces[CLONE_NEWNS]}"]
    if os.getuid() != 0:
        joined += [f"--user={namespaces[CLONE_NEWUSER]}", "--preserve-credentials"]
    process = await _ready([*joined, "--", "sh", "-c", _SCRIPT, "fimd-holder"])
    return Holder(process, _mapped(process.pid))


def namespaces_of(pid: int) -> dict[int, str]:
    """Return the links to a process's namespaces, by setns(2)'s kinds."""
    return {CLONE_NEWUSER: f"/proc/{pid}/ns/user", CLONE_NEWNS: f"/proc/{pid}/ns/mnt"}


async def _unshare(*namespaces: str) -> Process:
    words = ["unshare", *namespaces, "--propagation", "slave", "--", "sh", "-c", _SCRIPT]
    return await _ready([*words, "fimd-holder"])


async def _ready(argv: list[str]) -> Process:
    """Start a holder, and wait until it is in its namespace."""
    reader, writer = os.pipe()
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    try:
        try:
            process = Process.spawn(argv, directory="/", output=writer, errors=errors)
        finally:
            os.close(writer)
        try:
            async with asyncio.timeout(_SECONDS):
                await readable(reader)
            if os.read(reader, 16) != b"ready\n":
                said = os.pread(errors, 4096, 0).decode(errors="replace").strip()
                raise UnsupportedError(_refusal(said or "no reason was given"))
        except TimeoutError:
            await process.stop()
            reason = f"it was not there within {_SECONDS:g} s"
            raise UnsupportedError(_refusal(reason)) from None
        except BaseException:
            await process.stop()
            raise
    finally:
        os.close(reader)
        os.close(errors)
    return process


def _refusal(reason: str) -> str:
    return f"no namespace for mounts can be made here ({reason}): {remedy(_PROFILE)}"


def remedy(profile: str) -> str:
    """Return what to do where the machine refuses user namespaces.

    `profile` says who lacks which, where AppArmor does.
    """
    for path, (bad, what) in _SWITCHES.items():
        try:
            if Path(path).read_text().strip() == bad:
                return what.format(profile)
        except OSError:
            continue
    return "allow this user to make user namespaces (see fimctl doctor)"


def _ranges() -> tuple[list[IdRange], list[IdRange]] | None:
    """Return the user's ranges of uids and gids, None where they can't be used."""
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return None
    uids, gids = (list(subordinate_ids(path)) for path in RANGES.values())
    return (uids, gids) if uids and gids else None


def subordinate_ids(path: Path) -> Iterator[IdRange]:
    """Yield this user's ranges in a file like /etc/subuid; lines that make no sense are none."""
    names = {str(os.getuid())}
    with suppress(KeyError):  # a uid that no passwd knows, as in containers
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST_FILE)
    except OSError:
        return
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        start, _, count = numbers.partition(":")
        if name in names and start.isdecimal() and count.isdecimal() and int(count) > 0:
            yield IdRange(int(start), int(count))


async def _map_ranges(pid: int, uids: list[IdRange], gids: list[IdRange]) -> int:
    """Map the user to 0 and the ranges above it; return how many ids there are now."""
    for program, own, ranges in (
        ("newgidmap", os.getgid(), gids),
        ("newuidmap", os.getuid(), uids),
    ):
        words = ["0", str(own), "1"]
        inside = 1
        for given in ranges:
            count = min(given.count, MOST_IDS - inside)
            if count > 0:
                words += [str(inside), str(given.start), str(count)]
                inside += count
        await run([program, str(pid), *words], seconds=_SECONDS)
    return _mapped(pid)


def _map_own(pid: int) -> None:
    """Map nothing but the user; which a user may do without help. Raises OSError."""
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"0 {os.getgid()} 1"),
        ("uid_map", f"0 {os.getuid()} 1"),
    ):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)


def _mapped(pid: int) -> int:
    """Return how many ids, of both kinds, are mapped from 0 on without a gap."""
    if os.getuid() == 0:
        return 1
    counts = []
    for name in ("uid_map", "gid_map"):
        reached = 0
        with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
            for line in sorted(file, key=lambda line: int(line.split()[0])):
                inside, _, count = map(int, line.split())
                if inside == reached:
                    reached += count
        counts.append(reached)
    return min(counts)


def is_in_a_namespace(pid: int) -> bool:
    """Whether a process is in a namespace such as holders make. Raises OSError."""
    kind = "mnt" if os.getuid() == 0 else "user"
    descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        own = os.stat(f"/proc/self/ns/{kind}")
        if os.path.samestat(os.fstat(descriptor), own):
            return False
        if kind == "mnt":
            return os.stat(f"/proc/{pid}").st_uid == 0
        parent = fcntl.ioctl(descriptor, _NS_GET_PARENT)
        try:
            return os.path.samestat(os.fstat(parent), own)
        finally:
            os.close(parent)
    finally:
        os.close(descriptor)
