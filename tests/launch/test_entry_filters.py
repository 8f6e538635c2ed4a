"""The filters of the program around every program, by what they do with each call, by its name.

They hold numbers, of three machines' calls and of two ways of each. The kernel's own headers say
what these are, and a filter is gone through here as the kernel would (seccomp(2)).
"""

import errno
import platform
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.account import PROJECT

SOURCE = PROJECT / "fimd" / "launch" / "entry.c"
HEADERS = "/usr/include/x86_64-linux-gnu"
ALLOW, SUCCEED = 0x7FFF0000, 0x00050000
REFUSE, UNKNOWN = SUCCEED | errno.EPERM, SUCCEED | errno.ENOSYS
KEYS = ("add_key", "request_key", "keyctl")
FAKED = (
    *("chown", "fchown", "lchown", "fchownat", "capset", "setgroups", "setuid", "setgid"),
    *("setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid"),
)
DEVICE, FIFO = stat.S_IFBLK | 0o600, stat.S_IFIFO | 0o600
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413


@dataclass(frozen=True)
class Machine:
    """A machine that the program is compiled for, and the older one whose programs it runs."""

    compiler: str
    objcopy: str
    architecture: int
    """AUDIT_ARCH_*, of linux/audit.h."""
    header: str
    """The kernel's, which has the numbers of its calls."""
    older: int
    older_compiler: str
    older_header: str


MACHINES = {
    "x86_64": Machine(
        *("gcc", "objcopy", 0xC000003E, "asm/unistd_64.h"),
        *(0x40000003, "gcc", "asm/unistd_32.h"),
    ),
    "aarch64": Machine(
        *("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objcopy", 0xC00000B7, "asm/unistd.h"),
        *(0x40000028, "arm-linux-gnueabihf-gcc", "asm/unistd.h"),
    ),
}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


def run(*command: str | Path, given: str = "") -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if "fatal error" in done.stderr:
        pytest.skip(f"the machine's headers are not installed: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(compiler: str, header: str) -> dict[str, int]:
    """The calls that a machine has, by name."""
    given = f"#include <{header}>\n"
    names = re.findall(r"#define __NR_(\w+)", run(compiler, "-E", "-dM", "-", given=given))
    lines = "".join(f"={name} __NR_{name}\n" for name in names)
    text = run(compiler, "-E", "-P", "-", given=given + lines)
    found = re.findall(r"=\s*(\w+)\s+([\d( )+x]+)$", text, re.MULTILINE)
    return {name: sum(int(part, 0) for part in re.findall(r"\w+", sum_)) for name, sum_ in found}


@dataclass(frozen=True)
class Filter:
    """A program of the kernel's filter machine, as far as ours need it (linux/filter.h)."""

    code: bytes

    def __call__(self, architecture: int, number: int, *arguments: int) -> int:
        """What is done with a call."""
        given = [*arguments, *[0] * 6][:6]
        data = struct.pack("<IIQ6Q", number, architecture, 0, *given)
        steps: list[tuple[int, ...]] = list(struct.iter_unpack("<HBBI", self.code))
        at, value = 0, 0
        while True:
            code, then, otherwise, constant = steps[at]
            at += 1
            match code:
                case 0x20:
                    value = int.from_bytes(data[constant : constant + 4], "little")
                case 0x54:
                    value &= constant
                case 0x15:
                    at += then if value == constant else otherwise
                case 0x06:
                    return constant
                case _:
                    raise AssertionError(f"an unknown step: {code:#x}")


def filters(machine: Machine, scratch: Path) -> dict[str, Filter]:
    """Compile the program, and take out its filters, by their names in it."""
    made = scratch / "entry.o"
    options = ("-Os", "-std=gnu11", "-ffreestanding", "-fdata-sections", "-c")
    run(machine.compiler, *options, "-o", made, SOURCE)
    found = {}
    for name in ("KEPT_NATIVE", "KEPT_32", "ROOT_NATIVE", "ROOT_32"):
        taken = scratch / name
        run(machine.objcopy, "--dump-section", f".rodata.{name}={taken}", made, "/dev/null")
        found[name] = Filter(taken.read_bytes())
    return found


def check_fakes(filter_: Filter, architecture: int, calls: Mapping[str, int]) -> None:
    """Check that a filter has those calls succeed that it should, and no others."""
    succeeding = {
        name for name, number in calls.items() if filter_(architecture, number) == SUCCEED
    }
    expected = {name for name in calls if name.removesuffix("32") in FAKED}
    assert succeeding == expected
    for name, before in (("mknod", ()), ("mknodat", (0,))):
        if name in calls:
            assert filter_(architecture, calls[name], *before, 0, DEVICE) == SUCCEED
            assert filter_(architecture, calls[name], *before, 0, FIFO) == ALLOW


def check_keeps(filter_: Filter, architecture: int, calls: Mapping[str, int]) -> None:
    """Check that a filter knows of no keys, types nothing, and refuses nothing else."""
    for name, number in calls.items():
        typed = REFUSE if name == "ioctl" else UNKNOWN if name in KEYS else ALLOW
        for request in (TIOCSTI, TIOCLINUX, TIOCSTI | 1 << 32, TIOCLINUX | 1 << 32):
            assert filter_(architecture, number, 0, request) == typed, name
        if name not in KEYS:
            assert filter_(architecture, number, 0, TIOCGWINSZ) == ALLOW, name


def test_what_this_machines_programs_call_is_kept_apart_and_faked(
    machine: Machine, tmp_path: Path
) -> None:
    calls = numbers(machine.compiler, machine.header)
    found = filters(machine, tmp_path)
    check_keeps(found["KEPT_NATIVE"], machine.architecture, calls)
    check_fakes(found["ROOT_NATIVE"], machine.architecture, calls)
    for name, filter_ in found.items():
        other = machine.older if name.endswith("NATIVE") else machine.architecture
        assert {filter_(other, number, 0, TIOCSTI) for number in calls.values()} == {ALLOW}


def test_so_is_what_older_programs_of_the_machine_call(machine: Machine, tmp_path: Path) -> None:
    calls = numbers(machine.older_compiler, machine.older_header)
    found = filters(machine, tmp_path)
    check_keeps(found["KEPT_32"], machine.older, calls)
    check_fakes(found["ROOT_32"], machine.older, calls)


@pytest.mark.parametrize(
    ("compiler", "emulator"),
    [("aarch64-linux-gnu-gcc", "qemu-aarch64"), (f"gcc -m32 -idirafter {HEADERS}", "")],
    ids=["aarch64", "i386"],
)
def test_one_of_another_machine_runs_and_tells_where_it_has_no_filter(
    tmp_path: Path, compiler: str, emulator: str
) -> None:
    needed = [compiler.split(maxsplit=1)[0], *([emulator] if emulator else [])]
    lacking = [name for name in needed if shutil.which(name) is None]
    if lacking or (not emulator and platform.machine() != "x86_64"):
        pytest.skip(f"not for this machine, or not installed: {', '.join(lacking)}")
    program = tmp_path / "entry"
    run("env", f"CC={compiler}", PROJECT / "packaging" / "entry", program)

    def said(*words: str) -> tuple[int, str, str]:
        begin = ["unshare", "--user", "--map-root-user", *filter(None, [emulator]), str(program)]
        done = subprocess.run([*begin, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, output, warning = said("exec", "", "/bin/sh", "sh", "-c", 'echo "$0:$1"; exit 3', "a", "")
    assert (code, output) == (3, "a:\n")
    assert ("the kernel takes no filter" in warning) == bool(emulator)
    assert "is not for users" in said()[2]
