"""Run end-to-end tests, and say what the daemon and its workers do below an upper outside a jail.

    python tests/attacks/strace_check.py [FILE or pytest's option ...]

The daemon of each session is started under strace, which follows whatever it starts. Each call that
opens, renames, removes, changes or follows a path below an upper is printed, unless its process has
changed its root directory before. (A fork that imprisons itself is one of its own: what it came
from is in no jail.) Programs that are no part of fimd (the FUSE overlays, mount, the sandbox) are
passed over; so are calls that can lead nowhere: a step without following a link (O_PATH and
O_NOFOLLOW), a look at what one name stands for, a name that is made in a directory which is held,
and that directory itself. Printed is also each call in a jail that looks for a module of Python's,
where programs may have put one. The status is 1 where there is one to print, or a test fails.

A traced program gains no rights by its file, so that newuidmap(1) fails: there are no subordinate
ids, and tests that are about them fail.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
TESTS: Final = (
    "tests/end_to_end/test_commit.py",
    "tests/end_to_end/test_data_directory.py",
    "tests/end_to_end/test_switching.py",
    "tests/end_to_end/test_main_job.py",
)

# Strictly below an upper, wherever it has its name, also where a stack's directory shows it to a
# program; and what was one until a commit.
_UPPER: Final = re.compile(
    r"/\.[^/]*\.data/root/|/fimd/data/[^/]*/root/|/overlays/upperdir/"
    r"|/stacks/[0-9a-f]{16}/(upper|union/upper|data/root|data/upperdir)/"
    r"|/tmp/fimd-upper-[0-9a-f]{16}/|/tmp/lost-[0-9a-f]{16}/"
)
_MADE: Final = re.compile(r'symlink\("([^"]+)", "[^"]*/stacks/[0-9a-f]{16}/upper"\)')
"""What a stack is made of says where its upper is, whatever FIM_DIR_DATA is called."""
_IMPORT: Final = re.compile(r'"/[^"]*(?:/python3|/site-packages)')
"""A jail may have files of these names, and what is in them would be executed outside of it."""
_CALL: Final = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)")
_DIRECTORY: Final = re.compile(r"(?:AT_FDCWD|-?\d+)(?:<(.*)>)?$", re.DOTALL)
_STRING: Final = re.compile(r'"(.*)"(?:\.\.\.)?$', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|x[0-9a-f]{2}|.)")

# Which arguments are paths: with their directory's descriptor before them, or without one.
_AT: Final = {
    **dict.fromkeys(("openat", "openat2", "unlinkat", "mkdirat", "mknodat", "readlinkat"), (1,)),
    **dict.fromkeys(("fchmodat", "fchownat", "utimensat", "faccessat", "faccessat2"), (1,)),
    **dict.fromkeys(("fchmodat2", "newfstatat", "statx", "name_to_handle_at"), (1,)),
    **dict.fromkeys(("renameat", "renameat2", "linkat"), (1, 3)),
    "symlinkat": (2,),
    "open_tree": (1,),
}
_MAKING: Final = ("mkdirat", "mknodat", "symlinkat", "linkat")
"""They fail where anything has the name that they make."""
_PLAIN: Final = {
    **dict.fromkeys(("open", "creat", "unlink", "rmdir", "mkdir", "mknod", "readlink"), (0,)),
    **dict.fromkeys(("chmod", "chown", "lchown", "truncate", "chdir", "chroot", "access"), (0,)),
    **dict.fromkeys(("setxattr", "getxattr", "listxattr", "removexattr", "utime", "utimes"), (0,)),
    **dict.fromkeys(("lsetxattr", "lgetxattr", "llistxattr", "lremovexattr"), (0,)),
    **dict.fromkeys(("rename", "link"), (0, 1)),
    **dict.fromkeys(("execve", "statfs"), (0,)),
    "symlink": (1,),
    "stat": (0,),
}


@dataclass
class State:
    """What is known of a process."""

    program: str = ""
    directory: str = "/"
    jailed: bool = False


@dataclass
class Trace:
    """The processes that one strace followed: a file of calls for each."""

    prefix: Path
    jailed: int = 0
    """How many such calls there were in jails."""
    uppers: tuple[str, ...] = ()
    """The uppers that stacks were made of."""

    def learn(self) -> None:
        """Look for the uppers."""
        found: set[str] = set()
        for path in self.prefix.parent.glob(f"{self.prefix.name}.[0-9]*"):
            found.update(_MADE.findall(path.read_text(errors="replace")))
        self.uppers = tuple(f"{upper}/" for upper in found)

    def check(self, first: int) -> Iterator[str]:
        """Yield the calls that should not be, of a process and all that came of it."""
        pending = [(first, State())]
        while pending:
            pid, state = pending.pop()
            path = Path(f"{self.prefix}.{pid}")
            if not path.exists():
                continue
            for line in path.read_text(errors="replace").splitlines():
                if state.jailed and state.program.startswith("python") and _IMPORT.search(line):
                    yield f"{pid}: {line}"
                found = _CALL.match(line)
                if found is None or found[3] in {"-1", "?"}:
                    continue
                name, arguments, result = found[1], list(_split(found[2])), int(found[3])
                if name in {"clone", "clone3", "fork", "vfork"}:
                    pending.append((result, State(state.program, state.directory, state.jailed)))
                    continue
                if name == "execve":
                    state.program = os.path.basename(_text(arguments[0]))
                elif name == "chroot":
                    state.jailed = True
                elif name == "chdir":
                    state.directory = os.path.join(state.directory, _text(arguments[0]))
                if not state.program.startswith("python"):
                    continue
                for place in _places(name, arguments, state.directory):
                    if _UPPER.search(place) or place.startswith(self.uppers):
                        self.jailed += state.jailed
                        if not state.jailed and not _is_step(name, arguments):
                            yield f"{pid}: {line}"


def _split(arguments: str) -> Iterator[str]:
    """Yield the arguments of a call."""
    depth, quoted, start, index = 0, False, 0, 0
    while index < len(arguments):
        sign = arguments[index]
        if quoted:
            index += sign == "\\"
            quoted = sign != '"'
        elif sign == '"':
            quoted = True
        elif sign in "[{<(":
            depth += 1
        elif sign in "]}>)":
            depth -= 1
        elif sign == "," and depth == 0:
            yield arguments[start:index]
            start = index + 2
        index += 1
    yield arguments[start:]


def _text(argument: str) -> str:
    found = _STRING.match(argument)
    return _ESCAPE.sub(_unescaped, found[1]) if found else ""


def _unescaped(found: re.Match[str]) -> str:
    if found[1].isdigit():
        return chr(int(found[1], 8))
    return {"n": "\n", "t": "\t"}.get(found[1], found[1])


def _places(name: str, arguments: list[str], directory: str) -> Iterator[str]:
    """Yield the paths that a call is about."""
    for index in _AT.get(name, ()):
        if index < len(arguments):
            held = _DIRECTORY.match(arguments[index - 1])
            base = held[1] if held and held[1] else directory
            yield os.path.normpath(os.path.join(base, _text(arguments[index])))
    for index in _PLAIN.get(name, ()):
        if index < len(arguments):
            yield os.path.normpath(os.path.join(directory, _text(arguments[index])))


def _is_step(name: str, arguments: list[str]) -> bool:
    """Whether a call is about one name in a directory that is held, and follows no link."""
    given = _text(arguments[_AT[name][-1]]) if name in _AT else "/"
    if "/" in given:
        return False
    if given == "." or name in _MAKING:
        return True
    flags = arguments[2] if name in {"openat", "statx"} else arguments[-1]
    if name in {"newfstatat", "statx"}:
        return "AT_SYMLINK_NOFOLLOW" in flags
    return name == "openat" and "O_PATH" in flags and "O_NOFOLLOW" in flags


def main(words: list[str]) -> int:
    """Run the tests, and check what was done."""
    with tempfile.TemporaryDirectory(prefix="fimd-trace-") as scratch:
        os.chmod(scratch, 0o777)
        environment = {**os.environ, "FIMD_TRACE": scratch}
        command = [sys.executable, "-m", "pytest", "-q", *(words or TESTS)]
        status = subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode
        found: list[str] = []
        processes = jailed = 0
        for path in sorted(Path(scratch).glob("*.first")):
            first = int(path.read_text())
            prefix = path.with_suffix("")
            processes += len(list(Path(scratch).glob(f"{prefix.name}.[0-9]*")))
            trace = Trace(prefix)
            trace.learn()
            found += trace.check(first)
            jailed += trace.jailed
    for line in found:
        print(line)
    print(f"{processes} processes: {jailed} calls below an upper in a jail, {len(found)} outside")
    return 1 if found or status or not jailed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
