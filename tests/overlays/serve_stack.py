"""Mounts a data directory's stack in a process of its own: GLOBAL DATA [LAYER ...].

Each line on standard input is an overlay and a mode of the case-insensitive view, for which the
stack is mounted anew; the answer is a line of JSON. It leaves, and unmounts, at the end of input.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack

from fimd.base import logs
from fimd.base.paths import RuntimeTree
from fimd.base.settings import Settings
from fimd.casefold import mount as casefold
from fimd.layers import engines
from fimd.layers.resolve import Resolver
from fimd.layers.shared import Layers
from fimd.mounts.namespace import Namespace
from fimd.mounts.output import Outputs
from fimd.stacks.data import DataDirectory
from fimd.stacks.prepare import JAILED
from fimd.stacks.stack import Stack, StackSpec
from fimd.stacks.stacks import Stacks

SECONDS = 60.0


def describe(stack: Stack, namespace: Namespace) -> str:
    """What the tests have to know; what is mounted in the namespace is reached by way of /proc."""
    root = f"/proc/{namespace.process.pid}/root{stack.root}"
    return json.dumps({"root": root, "overlay": stack.overlay_name, "warnings": stack.warnings})


async def main(base: str, data: str, paths: list[str]) -> None:
    """Serve until the input ends."""
    settings = Settings(engine="embedded", casefold_engine="embedded")
    async with AsyncExitStack() as undo:
        tree = RuntimeTree.open(base)
        outputs = Outputs(tree.outputs)
        undo.callback(outputs.close)
        namespace = Namespace(tree.state, outputs, [engines.WORKER, casefold.WORKER, JAILED])
        namespace.start()
        undo.push_async_callback(namespace.close)
        engine = engines.chooser(settings, namespace)
        layers = Layers(tree, namespace, engine, lambda: 0, SECONDS)
        undo.push_async_callback(layers.retire_idle)
        view = casefold.choose(settings, namespace)
        stacks = Stacks(tree, namespace, view, SECONDS)
        mounted = await layers.acquire(Resolver().external(paths, []))
        undo.callback(layers.release, mounted)
        directory = DataDirectory.open(data)
        while line := await asyncio.to_thread(sys.stdin.readline):
            overlay, mode = line.split()
            spec = StackSpec(directory, tuple(layer.id for layer in mounted), overlay, mode)
            async with AsyncExitStack() as held:
                stack = await stacks.acquire(spec, mounted, os.getpid(), stacks.changes)
                held.push_async_callback(stacks.release, stack, os.getpid())
                print(describe(stack, namespace), flush=True)
                await asyncio.to_thread(sys.stdin.readline)
            print("unmounted", flush=True)


if __name__ == "__main__":
    logs.setup("warning")
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
