"""Starting root's program without a sandbox: in a chroot on a copy, where nothing else is had."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fimctl import messages
from fimctl.errors import ClientError
from fimd.base.errors import FimError
from fimd.base.places import find_global
from fimd.images.image import ImageFacts, read_image
from fimd.launch.plan import RUN
from fimd.launch.variables import inside
from fimd.layers.resolve import Resolver
from fimd.stacks.alone import laid_out
from fimd.stacks.data import DataDirectory
from fimd.stacks.stack import StackSpec

_ROOT: Final = {"HOME": "/root", "USER": "root", "SHELL": "/bin/sh"}
_WARNING: Final = (
    "without a sandbox: the program is root on this machine, in a copy of the image's tree that is "
    "made for this start and has no /proc, /sys or devices but the simplest"
)
_NOT_ROOT: Final = (
    "only root can do without a sandbox: allow this user to make user namespaces (see 'fimctl "
    "doctor'), or have root start the image"
)


def run(image: str, words: Sequence[str], data: str | None, layers: Sequence[str]) -> int:
    """Run a program, or the image's boot command, and return its exit code. Raises ClientError.

    `data` is the data directory where that is not the image's own, `layers` are FIM_LAYERS.
    """
    if os.geteuid() != 0:
        raise ClientError(_NOT_ROOT)
    resolver = Resolver()
    try:
        facts = read_image(image, resolver, data, layers)
        directory = DataDirectory.of(facts.path, data)
        _check_unused(directory)
        warnings = list(facts.warnings)
        others = resolver.external([*layers, directory.layers], warnings)
        for warning in (*warnings, _WARNING):
            messages.warning(warning)
        with laid_out(directory, [*facts.layers, *others]) as root:
            return _wait(_start(facts, root, words))
    except FimError as error:
        raise ClientError(str(error)) from error


def _check_unused(directory: DataDirectory) -> None:
    """Raise ClientError where instances use it, in whose overlay nothing may change."""
    stack = StackSpec(directory, (), "", "").id
    if Path(find_global(), "app", f"u{os.getuid()}", "stacks", stack).is_dir():
        raise ClientError(f"{directory.path} is in use: end the image's instances first")


def _start(facts: ImageFacts, root: str, words: Sequence[str]) -> "subprocess.Popen[bytes]":
    variables = inside({}, facts.environment, _ROOT, os.environ)
    program, *rest = words or facts.boot
    if not words and program == "bash" and not _has_bash(root):
        program = "sh"
    name = os.path.basename(facts.path)
    command = ["chroot", root, "/bin/sh", "-c", f"{variables.script}{RUN}", name, program, *rest]
    caller = {key: value for key, value in os.environ.items() if not key.startswith("LD_")}
    return subprocess.Popen(command, env={**caller, **variables.plain})


def _has_bash(root: str) -> bool:
    return any(os.path.lexists(os.path.join(root, place, "bash")) for place in ("bin", "usr/bin"))


def _wait(program: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of a program, to which signals go; return the exit code."""
    for number in (signal.SIGINT, signal.SIGQUIT):  # a terminal sends them to it as well
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: program.send_signal(number))
    code = program.wait()
    return code if code >= 0 else 128 - code
