"""`fimctl data`: an image's data directory as a whole, whoever its files belong to."""

import argparse
import os
from typing import Any

from fimctl.commands.layer_chain import confirm, run_job
from fimctl.commands.layer_inspect import stack_options
from fimctl.daemon import Daemon
from fimctl.environment import data_of
from fimctl.errors import ClientError
from fimctl.table import print_json, print_table, size_text
from fimctl.waiting import add_wait
from fimd.base.texts import printable


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "data",
        help="remove, copy or measure an image's data directory",
        description="What an image's programs have changed, and its managed layers, as a whole. "
        "Files that root inside has given to others can be neither removed by rm nor copied by "
        "cp.",
    )
    actions = parser.add_subparsers(required=True, metavar="remove|copy|size")
    remove = actions.add_parser("remove", help="remove it, with the managed layers")
    remove.add_argument("image", metavar="IMAGE")
    remove.add_argument("-y", "--yes", action="store_true", help="don't ask")
    add_wait(remove)
    remove.set_defaults(func=_remove)
    copy = actions.add_parser("copy", help="copy it, with all owners")
    copy.add_argument("image", metavar="IMAGE")
    copy.add_argument("target", metavar="TARGET", help="the copy, for FIM_DIR_DATA")
    add_wait(copy)
    copy.set_defaults(func=_copy)
    size = actions.add_parser("size", help="print how much it takes")
    size.add_argument("image", metavar="IMAGE")
    size.add_argument("--json", action="store_true", help="print JSON")
    size.set_defaults(func=_size)


def _remove(arguments: argparse.Namespace) -> int:
    image = arguments.image
    place = printable(data_of(image))
    if not os.path.lexists(data_of(image)):
        print(f"{place}: there is none")
        return 0
    if not arguments.yes:
        taken = size_text(sum(_sizes(image).values()))
        if not confirm(f"Remove {place}, which holds {taken}?"):
            return 1
    options = stack_options(image, own_only=True)
    run_job(image, "removing", "RemoveData", "a{sv}", (options,), arguments.wait)
    print(f"{place}: removed")
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    image, target = arguments.image, os.path.abspath(arguments.target)
    if not os.path.lexists(data_of(image)):
        raise ClientError(f"{printable(data_of(image))} is not there: nothing was changed yet")
    body = (os.fsencode(target), stack_options(image, own_only=True))
    run_job(image, "copying", "CopyData", "aya{sv}", body, arguments.wait)
    print(f"{printable(target)}: a copy, for FIM_DIR_DATA")
    return 0


def _size(arguments: argparse.Namespace) -> int:
    sizes = _sizes(arguments.image)
    if arguments.json:
        print_json(sizes)
    else:
        total = sum(sizes.values())
        print_table(
            ("", "SIZE"),
            [(name, size_text(size)) for name, size in {**sizes, "all": total}.items()],
        )
    return 0


def _sizes(image: str) -> dict[str, int]:
    from fimd.base.errors import FimError  # noqa: PLC0415 - for this command only
    from fimd.mounts.jail import joining, use  # noqa: PLC0415
    from fimd.stacks.size import size  # noqa: PLC0415

    with Daemon() as daemon:
        daemon.open_image(image)
        use(joining(daemon.join_namespace()))
    try:
        return size(os.path.realpath(image), data_of(image))
    except (FimError, OSError) as error:
        raise ClientError(f"{printable(data_of(image))} can't be measured: {error}") from error
