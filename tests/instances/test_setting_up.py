import asyncio
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from fimd.instances.setting_up import SettingUp

SANDBOX = ("bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--die-with-parent")


@contextmanager
def process(*command: str) -> Iterator[int]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        try:
            yield started.pid
        finally:
            started.kill()


async def waited(setting_up: SettingUp) -> float:
    began = time.monotonic()
    await setting_up.over()
    return time.monotonic() - began


@pytest.mark.parametrize("options", [(), ("--unshare-pid",)])
async def test_a_sandbox_is_made_once_its_program_runs(options: Sequence[str]) -> None:
    setting_up = SettingUp()
    with process(*SANDBOX, *options, "--", "sh", "-c", "echo up; sleep 60") as pid:
        setting_up.begin(pid)
        assert await waited(setting_up) < 1


async def test_a_process_that_has_yet_to_become_bubblewrap_is_waited_for() -> None:
    setting_up = SettingUp()
    script = "echo up; sleep 0.5; exec bwrap --bind / / --die-with-parent -- sleep 60"
    with process("sh", "-c", script) as pid:
        setting_up.begin(pid)
        assert 0.3 < await waited(setting_up) < 1.5


async def test_one_that_never_does_holds_nothing_up_for_long() -> None:
    setting_up = SettingUp()
    with process("sh", "-c", "echo up; exec sleep 60") as pid:
        setting_up.begin(pid)
        assert 1 < await waited(setting_up) < 5
        assert await waited(setting_up) < 0.5


async def test_a_process_that_is_gone_is_not_waited_for() -> None:
    setting_up = SettingUp()
    with process("sh", "-c", "echo up") as pid:
        pass
    setting_up.begin(pid)
    assert await waited(setting_up) < 0.5


async def test_several_may_wait() -> None:
    setting_up = SettingUp()
    with process("sh", "-c", "echo up; sleep 0.3") as pid:
        setting_up.begin(pid)
        await asyncio.gather(*(setting_up.over() for _ in range(3)))
