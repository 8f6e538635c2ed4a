"""Fifty instances of an image of ten layers at once, beside fifty runs of the script."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds
from tests.bench.world import (
    check_room,
    make_image,
    make_layers,
    make_script,
    make_trees,
    new_session,
    resident,
)
from tests.support.session import Session, wait_for

COUNT = 50
_ROUNDS = 5
_PROGRAM = ("sh", "-c", "echo up; read line")
_OF_EACH = ("bwrap", "busybox", "bash", "sh")
"""Names of the processes of a program and its sandbox, which both sides have."""


def measure() -> Iterator[Row]:
    """Measure until all are up and gone again, and what there is in between."""
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name, new_session() as session:
        scratch = Path(name)
        scratch.chmod(0o755)
        check_room(COUNT * 10, session)
        trees = make_trees(scratch, 10)
        layers = make_layers(trees, scratch)
        script = make_script(session, trees, layers, scratch)
        image = session.adopt(make_image(layers, scratch / "image"), "app.flatimage")
        times, processes, serving, memory = (Rounds() for _ in range(4))
        theirs = f"{COUNT} scripts, layers by {script.mounter}"
        commands: dict[str, Callable[[int], list[str]]] = {
            "instances": lambda _number: [str(image), "fim-exec", *_PROGRAM],
            theirs: lambda number: script.command(*_PROGRAM, directory=f"script{number}"),
        }
        for number in range(_ROUNDS):
            for kind in list(commands)[:: -1 if number % 2 else 1]:
                session.output("fimctl", "prune")
                wait_for(lambda: not session.mounts(), seconds=60)
                before = set(session.processes()) if kind == theirs else set()
                elapsed, own = _crowd(session, commands[kind], before)
                times.note(kind, elapsed)
                processes.note(kind, len(own))
                serving.note(kind, sum(comm not in _OF_EACH for comm, _ in own.values()))
                memory.note(kind, sum(size for _, size in own.values()))
        row = partial(compared, ours="instances", theirs=theirs, scale=1)
        what = f"{COUNT} instances"
        yield row(f"{what}: time until up, and until gone", times, unit="s", most=0.15)
        yield row(f"{what}: processes beside bwrap and program", serving, unit="", most=0.1)
        yield row(f"{what}: all processes", processes, unit="")
        yield row(f"{what}: resident memory (PSS)", memory, unit="MiB", most=0.1)


def _crowd(
    session: Session, command: Callable[[int], list[str]], before: set[int]
) -> tuple[float, dict[int, tuple[str, float]]]:
    """Start all, look at them, and let them go; the looking is no part of the time."""
    reader, writer = os.pipe()
    began = time.perf_counter()
    started = [
        session.start(*command(number), stdin=reader, stdout=subprocess.PIPE)
        for number in range(COUNT)
    ]
    os.close(reader)
    for process in started:
        assert process.stdout is not None
        if process.stdout.readline() != b"up\n":
            raise RuntimeError(f"{process.args!r} did not come up")
    up = time.perf_counter() - began
    own = {pid: _facts(pid) for pid in session.processes() if pid not in before}
    began = time.perf_counter()
    os.close(writer)
    for process in started:
        process.wait(120)
        assert process.stdout is not None
        process.stdout.close()
    return up + time.perf_counter() - began, own


def _facts(pid: int) -> tuple[str, float]:
    return Path(f"/proc/{pid}/comm").read_text().strip(), resident(pid)
