import os
from pathlib import Path

import pytest

from fimd.base.paths import RuntimeTree
from fimd.mounts.namespace import Namespace
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process
from fimd.stacks.data import DataDirectory
from fimd.stacks.stack import StackSpec
from fimd.stacks.stacks import OutdatedError, Stacks
from fimd.stacks.waiting import InUseError


async def no_view(*_: object) -> Process:
    raise AssertionError("no view is asked for")


async def test_layers_that_were_read_before_a_change_are_not_mounted(tmp_path: Path) -> None:
    tree = RuntimeTree.open(str(tmp_path / "fim"))
    data = DataDirectory.open(str(tmp_path / "data"))
    outputs = Outputs(tree.outputs)
    stacks = Stacks(tree, Namespace(tree.state, outputs, []), no_view, 5.0)
    spec, changes = StackSpec(data, (), "bwrap", "off"), stacks.changes
    async with stacks.reserve(data, "a commit"):
        with pytest.raises(InUseError, match="a commit of"):
            await stacks.acquire(spec, [], os.getpid(), changes)
    with pytest.raises(OutdatedError):
        await stacks.acquire(spec, [], os.getpid(), changes)
    assert stacks.users(data) == set()
    outputs.close()
