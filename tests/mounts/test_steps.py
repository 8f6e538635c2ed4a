"""Steps of one process: what they hand on, what becomes of a jail, and of a failure."""

import json
import os
import select
from dataclasses import replace
from pathlib import Path
from typing import Any

from fimd.base.errors import MountError
from fimd.mounts.jail import imprison
from fimd.mounts.steps import Step, leave_it_as_it_was, take, wait_until_read


def make(function: str, apart: bool = False, **arguments: Any) -> Step:
    return Step(f"{__name__}:{function}", function, 1.0, arguments, apart=apart)


def imprisoned(arguments: dict[str, Any], _files: list[int]) -> dict[str, Any]:
    directory = os.open(arguments["directory"], os.O_RDONLY)
    imprison(directory)
    return {"found": os.listdir("/"), "process": os.getpid()}


def outside(arguments: dict[str, Any], _files: list[int]) -> list[Any]:
    others = arguments["process"] != os.getpid()
    return [arguments["found"], others, os.path.isdir("/proc/self")]


def failing(_arguments: dict[str, Any], _files: list[int]) -> None:
    raise MountError("it is full")


def reading(_arguments: dict[str, Any], files: list[int]) -> list[str]:
    return [os.pread(file, 10, 0).decode() for file in files]


def taken(*steps: Step) -> list[Any]:
    """What a process says that takes them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            files = [os.dup(file) for step in steps for file in step.files]
            take([step.words() for step in steps], files, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        lines = said.readlines()
    os.waitpid(child, 0)
    return [json.loads(line) for line in lines]


def test_one_that_is_imprisoned_is_alone_in_its_jail_and_hands_on_what_it_found(
    tmp_path: Path,
) -> None:
    (tmp_path / "here").touch()
    jailed = make("imprisoned", apart=True, directory=str(tmp_path))
    [_, after] = taken(jailed, make("outside", found="nothing"))
    assert after == {"result": [["here"], True, True]}


def test_none_is_taken_after_one_that_failed() -> None:
    for apart in (True, False):
        said = taken(make("reading"), make("failing", apart=apart), make("reading"))
        assert said == [{"result": []}, {"error": ["MountFailed", "it is full"]}]


def test_a_process_goes_on_after_steps_that_leave_it_as_it_was() -> None:
    def goes_on(*steps: Step) -> bool:
        return leave_it_as_it_was([step.words() for step in steps])

    kept = replace(make("reading"), again=True)
    jailed = make("imprisoned", apart=True)
    assert goes_on(kept, jailed, kept)
    assert not goes_on(kept, make("reading"))
    assert not goes_on(kept, jailed)  # the last is imprisoned in the process itself


def test_a_process_waits_until_what_it_said_is_read() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        wait_until_read(writer)
        os._exit(0)
    os.close(writer)
    pidfd = os.pidfd_open(child)
    assert not select.select([pidfd], [], [], 0.2)[0]
    os.close(reader)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
    os.waitpid(child, 0)


def test_each_gets_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    (tmp_path / "b").write_text("second")
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in "ab"]
    steps = (
        Step(f"{__name__}:reading", "reading", 1.0, {}, (file,), apart=True) for file in opened
    )
    assert taken(*steps, make("reading")) == [
        {"result": ["first"]},
        {"result": ["second"]},
        {"result": []},
    ]
    for file in opened:
        os.close(file)
