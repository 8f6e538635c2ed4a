"""Each overlay, the embedded DwarFS and the case-insensitive view, mounted for real."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fimd.casefold import mount as casefold
from fimd.diagnosis.finding import Finding, fine, note, problem
from fimd.dwarfs.write import create
from fimd.errors import FimError
from fimd.instances.fallback import stand_ins
from fimd.layers import engines
from fimd.layers.source import LayerSource
from fimd.mounts.forks import Template
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process, run
from fimd.mounts.table import MountTable, below
from fimd.mounts.unmount import detach
from fimd.overlays import BACKENDS
from fimd.overlays.stack import StackDirectory
from fimd.paths import RuntimeTree
from fimd.settings import Settings

_SECONDS: Final = 5.0
_MARK: Final = "doctor's file"
_WORKS: Final = "mounts, writes and deletes"
_REMEDIES: Final = {
    "bwrap": "see the sandbox's findings",
    "overlayfs": "install fuse-overlayfs",
    "unionfs": "install unionfs-fuse, where the distribution has it",
}


async def check(data: str | None = None) -> list[Finding]:
    """Mount everything in a scratch directory of the runtime tree.

    Overlays are also tried with their changes where a data directory is, or is to be.
    """
    try:
        tree = RuntimeTree.open()
    except FimError as error:
        detail, _, remedy = str(error).rpartition(": ")
        return [problem("runtime tree", detail, remedy)]
    scratch = await asyncio.to_thread(tempfile.mkdtemp, prefix="doctor.", dir=tree.root)
    try:
        outputs = Outputs(Path(scratch))
        with MountTable() as table:
            overlays = asyncio.gather(
                *(_overlay(scratch, name, table, outputs) for name in BACKENDS)
            )
            embedded = await _embedded(scratch, table, outputs)
            refused = dict(zip(BACKENDS, await overlays, strict=True))
            trials = [*_judged("overlay {}", refused, _REMEDIES), *embedded]
            if data is not None:
                works = [name for name, reason in refused.items() if reason is None]
                trials += await _in_data(scratch, data, works, table, outputs)
        outputs.close()
    finally:
        await asyncio.to_thread(_remove, scratch)
    return [fine("runtime tree", str(tree.root)), *trials]


def _judged(
    title: str,
    refused: Mapping[str, str | None],
    remedies: Mapping[str, str],
    detail: str = "",
) -> list[Finding]:
    """Say of each overlay that it works, or why it was refused and which one stands in."""
    findings = []
    for name, reason in refused.items():
        others = [other for other in stand_ins(name) if refused.get(other, "") is None]
        if reason is None:
            finding = fine(title.format(name), detail + _WORKS)
        elif others:
            remedy = f"{remedies[name]}; {others[0]} stands in"
            finding = note(title.format(name), detail + reason, remedy)
        else:
            remedy = f"{remedies[name]}: nothing stands in for it"
            finding = problem(title.format(name), detail + reason, remedy)
        findings.append(finding)
    return findings


async def _overlay(scratch: str, name: str, table: MountTable, outputs: Outputs) -> str | None:
    """Try an overlay within the scratch directory; return why it can't be had."""
    path = os.path.join(scratch, name)
    _make(path, "layers/0", "upper", "work", "merged")
    return await _try_overlay(path, name, table, outputs)


async def _in_data(
    scratch: str, data: str, works: Sequence[str], table: MountTable, outputs: Outputs
) -> list[Finding]:
    """Try the overlays that work elsewhere with their changes beside those in a data directory."""
    place = await asyncio.to_thread(_nearest, data)
    try:
        upper = await asyncio.to_thread(tempfile.mkdtemp, prefix=".doctor.", dir=place)
    except OSError as error:
        remedy = "set FIM_DIR_DATA to a directory that can be written"
        return [problem("data directory", f"{place}: {error.strerror}", remedy)]
    try:
        refused = {name: await _overlay_in(scratch, upper, name, table, outputs) for name in works}
    finally:
        await asyncio.to_thread(_remove, upper)
    remedies = dict.fromkeys(works, "set FIM_DIR_DATA to a directory on another filesystem")
    return _judged("{} for changes", refused, remedies, f"in {place}: ")


async def _overlay_in(
    scratch: str, upper: str, name: str, table: MountTable, outputs: Outputs
) -> str | None:
    path, changes = os.path.join(scratch, f"{name}-in-data"), os.path.join(upper, name)
    _make(path, "layers/0", "merged")
    for directory in ("upper", "work"):
        os.makedirs(os.path.join(changes, directory))
        os.symlink(os.path.join(changes, directory), os.path.join(path, directory))
    return await _try_overlay(path, name, table, outputs)


async def _try_overlay(path: str, name: str, table: MountTable, outputs: Outputs) -> str | None:
    """Mount an overlay of two directories, write through it, and look at what arrived."""
    stack = StackDirectory("doctor", path, 1)
    script = 'set -e; [ "$(cat "$1/old")" = "$2" ]; echo new > "$1/new"; rm "$1/old"'
    try:
        overlay = await BACKENDS[name].mount(stack, table, outputs, _SECONDS)
        async with _mounted(overlay.process, overlay.mount_point, table):
            words = ["sh", "-c", script, "sh", overlay.root, _MARK]
            await run([*overlay.join, *words], seconds=_SECONDS)
            if "new" not in os.listdir(os.path.join(path, "upper")):
                return "it loses what is written"
    except FimError as error:
        return str(error)
    return None


async def _embedded(scratch: str, table: MountTable, outputs: Outputs) -> list[Finding]:
    """Mount a layer and a case-insensitive view by the programs that the project brings."""
    template = Template([engines.WORKER, casefold.WORKER], outputs)
    template.start()
    settings = Settings(mount_timeout=_SECONDS, engine="embedded", casefold_engine="embedded")
    engine = engines.choose(settings, template, table, outputs)
    mount_view = casefold.choose(settings, template, table, outputs)
    try:
        return list(
            await asyncio.gather(
                _try("layer (embedded)", lambda: _layer(scratch, engine, table)),
                _try("view (embedded)", lambda: _view(scratch, mount_view, table)),
            )
        )
    finally:
        await template.close()


async def _try(name: str, trial: Callable[[], Awaitable[None]]) -> Finding:
    try:
        await trial()
    except (FimError, OSError) as error:
        return problem(name, str(error), "see the findings on fuse; else report a fault of fimd")
    return fine(name, "mounts and is read")


async def _layer(scratch: str, engine: engines.Engine, table: MountTable) -> None:
    source, image, point = (os.path.join(scratch, name) for name in ("tree", "image", "layer"))
    _make(scratch, "tree", "layer")
    await asyncio.to_thread(create, source, image, level=1)
    facts = os.stat(image)
    layer = LayerSource(image, 0, facts.st_size, facts.st_dev, facts.st_ino, b"doctor")
    async with _mounted(await engine.mount([layer], point), point, table):
        shown = os.path.join(engine.place(point, layer), "old")
        await run(["cmp", shown, os.path.join(source, "old")], seconds=_SECONDS)


async def _view(scratch: str, mount: casefold.View, table: MountTable) -> None:
    directory, point = (os.path.join(scratch, name) for name in ("spelled", "view"))
    _make(scratch, "spelled", "view")
    async with _mounted(await mount("doctor", directory, point, False, ()), point, table):
        await run(["test", "-e", os.path.join(point, "OLD")], seconds=_SECONDS)


def _remove(scratch: str) -> None:
    """Remove the scratch directory; kernel overlayfs leaves one in it that may not be entered.

    What could not be unmounted is told already, and stays; the daemon removes it later.
    """
    mounted = {mount.mount_point for mount in below(scratch)}
    for path, names, _ in os.walk(scratch):
        names[:] = [name for name in names if os.path.join(path, name) not in mounted]
        for name in names:
            os.chmod(os.path.join(path, name), 0o700)
    if not mounted:
        shutil.rmtree(scratch, ignore_errors=True)


def _nearest(path: str) -> str:
    """Return the directory that a path is in or would be made in."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _make(directory: str, first: str, *others: str) -> None:
    """Make directories, and a file in the first one."""
    for name in (first, *others):
        os.makedirs(os.path.join(directory, name))
    Path(directory, first, "old").write_text(_MARK)


@asynccontextmanager
async def _mounted(process: Process, point: str | None, table: MountTable) -> AsyncIterator[None]:
    """Unmount, and see the process off, whatever happens."""
    try:
        yield
    finally:
        try:
            if point is not None and point in table.points():
                await detach(point)
        finally:
            if point is None or not await process.wait(1.0):
                await process.stop()
