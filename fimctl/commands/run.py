"""`fimctl run`: a program in an image, for people who don't think in fim- words."""

import argparse
import os
from typing import Any, NoReturn

from fimctl.environment import data_given, layers_given
from fimctl.launch import launch
from fimctl.waiting import add_wait, wait_option


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="run a program in an image",
        description="Run a program in an image, or the image's boot command.",
        usage="fimctl run [OPTIONS] IMAGE [PROGRAM [ARGUMENT ...]]",
    )
    parser.add_argument("--root", action="store_true", help="as uid 0 inside")
    parser.add_argument("--overlay", metavar="NAME", help="bwrap, overlayfs or unionfs")
    parser.add_argument(
        "--casefold", choices=["on", "preserve"], help="find names in any case (for Wine)"
    )
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="PATH",
        help="load a layer, or a directory of layers, above the image's own; may be repeated",
    )
    parser.add_argument("--data", metavar="DIR", help="keep changes there (FIM_DIR_DATA)")
    parser.add_argument(
        "--all-bindings",
        action="store_true",
        help="let the image's own bindings show anything, also the keys in your home",
    )
    parser.add_argument(
        "--no-sandbox",
        action="store_true",
        help="as root, where no sandbox can be made: in a chroot on a copy of the image's tree",
    )
    add_wait(parser)
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("words", metavar="PROGRAM", nargs=argparse.REMAINDER)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Become the program, or run it without a sandbox."""
    return _run_alone(arguments) if arguments.no_sandbox else _become(arguments)


def _run_alone(arguments: argparse.Namespace) -> int:
    from fimctl import no_sandbox  # noqa: PLC0415 - few starts are of this kind

    layers = [*layers_given(arguments.image), *map(os.path.abspath, arguments.layer)]
    data = os.path.abspath(arguments.data) if arguments.data else data_given()
    return no_sandbox.run(arguments.image, arguments.words, data, layers)


def _become(arguments: argparse.Namespace) -> NoReturn:
    options: dict[str, tuple[str, Any]] = {}
    if arguments.overlay:
        options["overlay"] = ("s", arguments.overlay)
    if arguments.casefold:
        options["casefold"] = ("s", arguments.casefold)
    if arguments.layer:
        paths = [os.fsencode(os.path.abspath(layer)) for layer in arguments.layer]
        options["layers"] = ("aay", paths)
    if arguments.data:
        options["data"] = ("ay", os.fsencode(os.path.abspath(arguments.data)))
    options.update(wait_option(arguments))
    mode = "boot" if not arguments.words else "root" if arguments.root else "exec"
    options["root"] = ("b", arguments.root)
    options["executed"] = ("b", arguments.all_bindings)
    launch(arguments.image, mode, arguments.words, options)
