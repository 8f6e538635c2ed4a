"""`fimctl layer remove|squash|export`: change which layers an image has."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from fimctl.commands.layer_inspect import layers_of, stack_options
from fimctl.compression import compression_level
from fimctl.daemon import Daemon
from fimctl.errors import ClientError
from fimctl.jobs import follow, print_notes
from fimctl.table import size_text
from fimctl.waiting import add_wait
from fimd.base.texts import printable


def add_parsers(actions: Any) -> None:
    """Add the commands."""
    remove = actions.add_parser("remove", help="remove an image's topmost layer")
    remove.add_argument("image", metavar="IMAGE")
    remove.add_argument("-y", "--yes", action="store_true", help="don't ask")
    add_wait(remove)
    remove.set_defaults(func=_remove)
    squash = actions.add_parser(
        "squash",
        help="make one layer of several",
        description="Make one layer of those from FIRST to LAST, as list numbers them: all in the "
        "image, or all among its managed layers. What an application sees stays the same.",
    )
    squash.add_argument("image", metavar="IMAGE")
    squash.add_argument("first", metavar="FIRST", type=int)
    squash.add_argument("last", metavar="LAST", type=int)
    add_wait(squash)
    squash.set_defaults(func=_squash)
    export = actions.add_parser("export", help="write a layer of an image to a file")
    export.add_argument("image", metavar="IMAGE")
    export.add_argument("index", metavar="INDEX", type=int)
    export.add_argument("output", metavar="FILE")
    export.set_defaults(func=_export)


def _remove(arguments: argparse.Namespace) -> int:
    options = stack_options(arguments.image, own_only=True)
    places, _ = layers_of(arguments.image, options)
    index, top = len(places) - 1, places[-1]
    what = f"layer {index} ({size_text(top.size)} at offset {top.offset} of {printable(top.path)})"
    if not arguments.yes and not confirm(f"Remove {what} for good?"):
        return 1
    run_job(arguments.image, "removing", "RemoveLayer", "ua{sv}", (index, options), arguments.wait)
    print(f"removed {what}")
    return 0


def _squash(arguments: argparse.Namespace) -> int:
    level = compression_level()
    options = {**stack_options(arguments.image), "level": ("u", level)}
    body = (_number(arguments.first), _number(arguments.last), options)
    title = f"squashing (level {level})"
    made = run_job(arguments.image, title, "SquashLayers", "uua{sv}", body, arguments.wait)
    place = printable(os.fsdecode(bytes(made["path"][1])))
    print(f"{place}: layers {body[0]} to {body[1]} are one of {size_text(made['size'][1])}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    output = os.fsencode(os.path.abspath(arguments.output))
    body = (_number(arguments.index), output, stack_options(arguments.image))
    made = run_job(arguments.image, "exporting", "ExportLayer", "uaya{sv}", body)
    print(f"{printable(arguments.output)}: {size_text(made['size'][1])}")
    return 0


def _number(given: int) -> int:
    if not 0 <= given < 1 << 32:
        raise ClientError(f"{given} is not the number of a layer: see 'fimctl layer list'")
    return given


def job(
    image: str,
    title: str,
    member: str,
    signature: str,
    body: tuple[Any, ...],
    wait: float = 0,
) -> dict[str, Any]:
    """Have the daemon do something to an image as a job; return the job's properties.

    The method's options come last in `body`. `wait` is how long (seconds) others' use is waited
    for.
    """
    if wait:
        body = (*body[:-1], {**body[-1], "wait": ("d", wait)})
    with Daemon() as daemon:
        opened = daemon.open_image(image)

        def start() -> str:
            return str(daemon.image(opened, member, signature, body, wait=wait)[0])

        return follow(daemon, title, start, wait=bool(wait))


def run_job(
    image: str,
    title: str,
    member: str,
    signature: str,
    body: tuple[Any, ...],
    wait: float = 0,
) -> dict[str, Any]:
    """Have the daemon do something as `job` does; print its notes and return its result."""
    facts = job(image, title, member, signature, body, wait)
    print_notes(facts)
    result: dict[str, Any] = facts["Result"]
    return result


def confirm(question: str, ask: Callable[[str], str] = input) -> bool:
    """Ask on the terminal. Raises ClientError where there is none."""
    if not sys.stdin.isatty():
        raise ClientError(f"{question} Add --yes to say so: there is no terminal to ask on")
    try:
        return ask(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
