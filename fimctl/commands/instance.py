"""`fimctl instance`, and `fim-instance` of an image: running instances, and commands in them."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from fimctl.daemon import Daemon
from fimctl.environment import data_of
from fimctl.errors import ClientError, WordsError
from fimctl.words import operation, refuse_trailing


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("instance", help="an image's running instances")
    actions = parser.add_subparsers(required=True, metavar="list|exec")
    action = actions.add_parser("list", help="print index and process of each, oldest first")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: show(given.image))
    action = actions.add_parser(
        "exec",
        help="run a command inside of one",
        usage="fimctl instance exec IMAGE INDEX PROGRAM [ARGUMENT ...]",
    )
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("index", metavar="INDEX", type=int, help="as list numbers them")
    action.add_argument("program", metavar="PROGRAM")
    action.add_argument("words", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    action.set_defaults(
        func=lambda given: execute(given.image, given.index, [given.program, *given.words])
    )


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-instance list | exec <index> <program> [args...]`."""
    verb, rest = operation(words, "Missing op for 'fim-instance' (<exec|list>)")
    if verb == "list":
        refuse_trailing("fim-instance", rest)
        return show(image)
    if verb != "exec":
        raise WordsError("Invalid instance operation")
    if not rest:
        raise WordsError("Missing 'id' argument for 'fim-instance'")
    if not (rest[0].isascii() and rest[0].isdigit()):
        raise WordsError("Id argument must be a digit")
    if not rest[1:]:
        raise WordsError("Missing 'cmd' argument for 'fim-instance'")
    return execute(image, int(rest[0][:20]), rest[1:])


def running(image: str) -> list[int]:
    """Return the processes of an image's instances on its data directory, oldest first."""
    wanted = os.fsencode(os.path.realpath(image)), os.fsencode(data_of(image))
    with Daemon() as daemon:
        objects = daemon.objects()
    found = [
        (facts["Instance"]["StartedAt"], facts["Instance"]["Pid"])
        for facts in objects.values()
        if "Instance" in facts
        and (bytes(facts["Instance"]["ImagePath"]), bytes(facts["Instance"]["DataDir"])) == wanted
        and facts["Instance"]["State"] not in {"background", "ending"}
    ]
    return [pid for _, pid in sorted(found)]


def show(image: str) -> int:
    """Print `index:pid` of each instance."""
    for index, pid in enumerate(running(image)):
        print(f"{index}:{pid}")
    return 0


def execute(image: str, index: int, words: Sequence[str]) -> int:
    """Become a program inside a running instance; returns where there is none of that name."""
    from fimctl.enter import enter  # noqa: PLC0415 - listing need not wait for it

    pids = running(image)
    if not pids:
        raise ClientError("No instances are running")
    if not 0 <= index < len(pids):
        raise ClientError("Instance index out of bounds")
    return enter(pids[index], words)
