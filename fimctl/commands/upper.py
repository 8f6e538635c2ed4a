"""`fimctl upper`: what was changed since the last commit, and how to throw it away."""

import argparse
import os
import sys
from collections import Counter
from typing import Any

from fimctl.commands.layer_chain import confirm, run_job
from fimctl.commands.layer_inspect import layers_of, print_changes, stack_options
from fimctl.daemon import Daemon
from fimctl.environment import data_of
from fimctl.errors import ClientError
from fimctl.table import size_text
from fimctl.waiting import add_wait
from fimd.base.texts import printable


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("upper", help="what was changed in an image, not yet committed")
    actions = parser.add_subparsers(required=True, metavar="status|reset")
    status = actions.add_parser("status", help="show what a commit would commit")
    status.add_argument("image", metavar="IMAGE")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(func=_status)
    reset = actions.add_parser("reset", help="throw away what was changed")
    reset.add_argument("image", metavar="IMAGE")
    reset.add_argument("-y", "--yes", action="store_true", help="don't ask")
    add_wait(reset)
    reset.set_defaults(func=_reset)


def _status(arguments: argparse.Namespace) -> int:
    changes = _changes(arguments.image)
    print_changes(changes, as_json=arguments.json)
    if not arguments.json:
        print(_summary(changes))
    return 0


def _summary(changes: list[Any]) -> str:
    if not changes:
        return "nothing was changed"
    counts = Counter(item.kind for item in changes)
    parts = [f"{count} {kind}" for kind, count in sorted(counts.items())]
    return f"{', '.join(parts)}; {size_text(sum(item.size for item in changes))} of files"


def _changes(image: str) -> list[Any]:
    from fimd.base.errors import FimError  # noqa: PLC0415 - for this command only
    from fimd.mounts.jail import joining, use  # noqa: PLC0415
    from fimd.stacks.status import changed  # noqa: PLC0415

    places, _ = layers_of(image)
    with Daemon() as daemon:
        use(joining(daemon.join_namespace()))  # where its files are root's, whoever has them
    try:
        return changed(os.path.realpath(image), data_of(image), places)
    except FimError as error:
        raise ClientError(f"the changes in {_root(image)} can't be listed: {error}") from error


def _root(image: str) -> str:
    return printable(f"{data_of(image)}/root")


def _reset(arguments: argparse.Namespace) -> int:
    try:
        changes = _changes(arguments.image)
        what = _summary(changes)
    except ClientError as error:  # what can't be listed is to be got rid of all the more
        print(f"fimctl: {error}", file=sys.stderr)
        what = "all changes"
    else:
        if not changes:
            print("nothing was changed")
            return 0
    if not arguments.yes and not confirm(f"Throw away {what} in {_root(arguments.image)}?"):
        return 1
    options = stack_options(arguments.image, own_only=True)
    run_job(arguments.image, "removing", "ResetUpper", "a{sv}", (options,), arguments.wait)
    print(f"thrown away: {what}")
    return 0
