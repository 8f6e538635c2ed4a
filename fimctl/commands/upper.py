"""`fimctl upper`: what was changed since the last commit, and how to throw it away."""

import argparse
from collections import Counter
from typing import Any

from fimctl.commands.layer_chain import confirm, run_job
from fimctl.commands.layer_inspect import layers_of, print_changes, stack_options
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
    from fimd.base.errors import FimError  # noqa: PLC0415
    from fimd.dwarfs.errors import DwarfsError  # noqa: PLC0415 - for this command only
    from fimd.dwarfs.write import SourceTree  # noqa: PLC0415
    from fimd.layers.owners import are_kept  # noqa: PLC0415
    from fimd.trees.canonical import canonical  # noqa: PLC0415
    from fimd.trees.diff import changes  # noqa: PLC0415
    from fimd.trees.merged import Merged, open_layers  # noqa: PLC0415
    from fimd.trees.upper import read_upper  # noqa: PLC0415

    root = f"{data_of(image)}/root"
    places, _ = layers_of(image)
    try:
        with SourceTree(root) as tree, open_layers(places) as layers:
            lower = Merged(layers)
            entries = canonical(read_upper(root, tree.scan()), lower)
            seen = all(map(are_kept, layers))
            found = changes(entries, lower, owners=seen)
            return sorted(found, key=lambda item: item.path)
    except (DwarfsError, FimError) as error:
        raise ClientError(str(error)) from error


def _reset(arguments: argparse.Namespace) -> int:
    changes = _changes(arguments.image)
    if not changes:
        print("nothing was changed")
        return 0
    root = printable(f"{data_of(arguments.image)}/root")
    if not arguments.yes and not confirm(f"Throw away {_summary(changes)} in {root}?"):
        return 1
    options = stack_options(arguments.image, own_only=True)
    run_job(arguments.image, "removing", "ResetUpper", "a{sv}", (options,), arguments.wait)
    print(f"thrown away: {_summary(changes)}")
    return 0
