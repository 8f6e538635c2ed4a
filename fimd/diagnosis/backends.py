"""Each overlay, the embedded DwarFS and the case-insensitive view, mounted for real."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fimd.base.abilities import missing
from fimd.base.errors import FimError
from fimd.base.paths import RuntimeTree
from fimd.base.removal import remove_tree
from fimd.base.settings import Settings
from fimd.casefold import mount as casefold
from fimd.diagnosis.finding import Finding, fine, note, problem
from fimd.dwarfs.write import create
from fimd.instances import former
from fimd.layers import engines
from fimd.layers.source import LayerSource
from fimd.mounts import fuse_device
from fimd.mounts.namespace import Namespace
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process, run
from fimd.overlays import BACKENDS, COPY
from fimd.overlays.fallback import stand_ins
from fimd.overlays.stack import StackDirectory
from fimd.store import store

_SECONDS: Final = 5.0
_MARK: Final = "doctor's file"
_WORKS: Final = "mounts, writes and deletes"
_ELSEWHERE: Final = "set FIM_DIR_DATA to a directory on another filesystem"
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
        namespace = Namespace(Path(scratch), outputs, [engines.WORKER, casefold.WORKER])
        namespace.start()
        try:
            trials = await _try_all(scratch, data, namespace)
        finally:
            await namespace.close()
            outputs.close()
    finally:
        await asyncio.to_thread(_remove, scratch)
    earlier = await asyncio.to_thread(_earlier, tree)
    return [fine("runtime tree", str(tree.root)), *earlier, *trials]


def _earlier(tree: RuntimeTree) -> list[Finding]:
    """Tell of what goes on that an earlier fimd started."""
    pids = {pid for found in former.users(tree).values() for pid in found.values()}
    if not pids:
        return []
    shown = ", ".join(map(str, sorted(pids)))
    return [
        note(
            "earlier instances",
            f"process {shown} was started by an earlier fimd, and has its data directory to itself",
            "end it when it suits; all that is left of that fimd goes then",
        )
    ]


async def _try_all(scratch: str, data: str | None, namespace: Namespace) -> list[Finding]:
    try:
        await namespace.hold()
    except FimError as error:
        detail, _, remedy = str(error).rpartition(": ")
        findings = [problem("namespace", detail, remedy)]
        if os.getuid() == 0:
            alone = "in a chroot on a copy, by 'fimctl run --no-sandbox' alone"
            findings.append(note("start", alone, "see the namespace's finding"))
        return findings
    try:
        no_fuse = await asyncio.to_thread(fuse_device.missing)
        overlays = asyncio.gather(*(_overlay(scratch, name, namespace) for name in BACKENDS))
        embedded = await _embedded(scratch, namespace) if no_fuse is None else []
        refused = dict(zip(BACKENDS, await overlays, strict=True))
        remedies = _REMEDIES
        if no_fuse is not None:
            remedies = {name: no_fuse.partition(": ")[2] for name in BACKENDS}
        trials = [_describe(namespace), *_judged("overlay {}", refused, remedies), *embedded]
        trials.append(await asyncio.to_thread(_way, no_fuse, refused["bwrap"]))
        if data is not None:
            works = [name for name, reason in refused.items() if reason is None]
            trials += await _in_data(scratch, data, works, namespace)
        return trials
    finally:
        namespace.release()


def _way(no_fuse: str | None, no_overlay: str | None) -> Finding:
    """Say which way a start takes, and why."""
    if no_fuse is None:
        return fine("start", "layers are mounted by FUSE")
    reason, _, remedy = no_fuse.partition(": ")
    detail = f"layers are unpacked into {store.place()}, since {reason}"
    if no_overlay is not None:
        detail += f", and copied for each start, since the kernel has no overlay ({no_overlay})"
    try:
        store.check_place()
    except FimError as error:
        detail, _, remedy = str(error).rpartition(": ")
        return problem("start", detail, remedy)
    return note("start", detail, remedy)


def _describe(namespace: Namespace) -> Finding:
    if os.getuid() == 0:
        return fine("namespace", "root has one for mounts alone")
    if namespace.ids > 1:
        return fine("namespace", f"can be made, with {namespace.ids} ids")
    return note(
        "namespace",
        "can be made, with this user's id alone: in it nothing can be given to other users",
        "see the subordinate ids among the sandbox's findings",
    )


def _judged(
    title: str,
    refused: Mapping[str, str | None],
    remedies: Mapping[str, str],
    detail: str = "",
) -> list[Finding]:
    """Say of each overlay that it works, or why it was refused and which one stands in."""
    findings = []
    for name, reason in refused.items():
        works = (COPY, *(other for other, refusal in refused.items() if refusal is None))
        others = [other for other in stand_ins(name) if other in works]
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


async def _overlay(scratch: str, name: str, namespace: Namespace) -> str | None:
    """Try an overlay within the scratch directory; return why it can't be had."""
    return await _overlay_in(os.path.join(scratch, name), f"{scratch}/changes", name, namespace)


async def _in_data(
    scratch: str, data: str, works: Sequence[str], namespace: Namespace
) -> list[Finding]:
    """Try the overlays that work elsewhere with their changes beside those in a data directory."""
    place = await asyncio.to_thread(_nearest, data)
    try:
        upper = await asyncio.to_thread(tempfile.mkdtemp, prefix=".doctor.", dir=place)
    except OSError as error:
        remedy = "set FIM_DIR_DATA to a directory that can be written"
        return [problem("data directory", f"{place}: {error.strerror}", remedy)]
    try:
        kept = await asyncio.to_thread(_kept, upper, place)
        refused = {
            name: await _overlay_in(f"{scratch}/{name}-in-data", upper, name, namespace)
            for name in works
        }
    finally:
        await asyncio.to_thread(_remove, upper)
    remedies = dict.fromkeys(works, _ELSEWHERE)
    return [*kept, *_judged("{} for changes", refused, remedies, f"in {place}: ")]


def _kept(directory: str, place: str) -> list[Finding]:
    """Tell whether the file system of the changes keeps what programs rely on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = missing(descriptor)
    finally:
        os.close(descriptor)
    if not found:
        return [fine("file system", f"{place} keeps links and modes")]
    detail = (
        f"{place} keeps no {', no '.join(found)}: what programs do with them is refused or lost"
    )
    return [problem("file system", detail, _ELSEWHERE)]


async def _overlay_in(path: str, upper: str, name: str, namespace: Namespace) -> str | None:
    changes = os.path.join(upper, name)
    _make(path, "layers/0", "merged")
    for directory in ("upper", "work"):
        os.makedirs(os.path.join(changes, directory))
        os.symlink(os.path.join(changes, directory), os.path.join(path, directory))
    return await _try_overlay(path, name, namespace)


async def _try_overlay(path: str, name: str, namespace: Namespace) -> str | None:
    """Mount an overlay of two directories, write through it, and look at what arrived."""
    upper, work = await asyncio.to_thread(_identities, path, "upper", "work")
    stack = StackDirectory("doctor", path, 1, upper, work=work)
    script = 'set -e; [ "$(cat "$1/old")" = "$2" ]; echo new > "$1/new"; rm "$1/old"'
    try:
        overlay = await BACKENDS[name].mount(stack, namespace, _SECONDS)
        async with _mounted(overlay.process, overlay.root, namespace):
            words = ["sh", "-c", script, "sh", overlay.root, _MARK]
            await run([*namespace.join, *words], seconds=_SECONDS)
            if "new" not in os.listdir(os.path.join(path, "upper")):
                return "it loses what is written"
        for mount in reversed(namespace.below(path)):  # what else the overlay stood on
            await namespace.unmount(mount.mount_point)
    except FimError as error:
        return str(error)
    finally:  # what a backend has mounted beside it, too: it would keep the namespace
        for mount in reversed(namespace.below(path)):
            await namespace.unmount(mount.mount_point)
    return None


def _identities(path: str, *names: str) -> list[tuple[int, int]]:
    found = [os.stat(os.path.join(path, name)) for name in names]
    return [(facts.st_dev, facts.st_ino) for facts in found]


async def _embedded(scratch: str, namespace: Namespace) -> list[Finding]:
    """Mount a layer and a case-insensitive view by the programs that the project brings."""
    settings = Settings(mount_timeout=_SECONDS, engine="embedded", casefold_engine="embedded")
    engine = engines.choose(settings, namespace)
    mount_view = casefold.choose(settings, namespace)
    return list(
        await asyncio.gather(
            _try("layer (embedded)", lambda: _layer(scratch, engine, namespace)),
            _try("view (embedded)", lambda: _view(scratch, mount_view, namespace)),
        )
    )


async def _try(name: str, trial: Callable[[], Awaitable[None]]) -> Finding:
    try:
        await trial()
    except (FimError, OSError) as error:
        return problem(name, str(error), "see the findings on fuse; else report a fault of fimd")
    return fine(name, "mounts and is read")


async def _layer(scratch: str, engine: engines.Engine, namespace: Namespace) -> None:
    source, image, point = (os.path.join(scratch, name) for name in ("tree", "image", "layer"))
    _make(scratch, "tree", "layer")
    await asyncio.to_thread(create, source, image, level=1)
    facts = os.stat(image)
    layer = LayerSource(image, 0, facts.st_size, facts.st_dev, facts.st_ino, b"doctor")
    async with _mounted(await engine.mount([layer], point), point, namespace):
        shown = os.path.join(point, layer.id, "old")
        await run([*namespace.join, "cmp", shown, os.path.join(source, "old")], seconds=_SECONDS)


async def _view(scratch: str, mount: casefold.View, namespace: Namespace) -> None:
    directory, point = (os.path.join(scratch, name) for name in ("spelled", "view"))
    _make(scratch, "spelled", "view")
    async with _mounted(await mount("doctor", directory, point, "on", ()), point, namespace):
        await run([*namespace.join, "test", "-e", os.path.join(point, "OLD")], seconds=_SECONDS)


def _remove(scratch: str) -> None:
    """Remove the scratch directory; programs in sandboxes may see it, beside a data directory."""
    place, name = os.path.split(scratch)
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            remove_tree(directory, name)
    finally:
        os.close(directory)


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
async def _mounted(
    process: Process | None, point: str, namespace: Namespace
) -> AsyncIterator[None]:
    """Unmount, and see the process off, whatever happens."""
    try:
        yield
    finally:
        try:
            for mount in reversed(namespace.below(point)):
                await namespace.unmount(mount.mount_point)
        finally:
            if process is not None and not await process.wait(1.0):
                await process.stop()
