"""`fimctl layer`, and `fim-layer` of an image: make layers, add them, commit changes into them."""

import argparse
import os
from typing import Any

from fimctl import messages
from fimctl.commands import layer_chain, layer_inspect
from fimctl.compression import compression_level
from fimctl.daemon import Daemon
from fimctl.errors import ClientError, WordsError, failing
from fimctl.jobs import follow, print_notes
from fimctl.table import size_text
from fimctl.waiting import add_wait
from fimctl.words import operation, refuse_trailing
from fimd.base.texts import printable

MODES = ("binary", "layer", "file")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("layer", help="make, add, commit, inspect and squash layers")
    actions = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")
    create = actions.add_parser("create", help="make a layer file of a directory")
    create.add_argument("directory", metavar="DIR")
    create.add_argument("output", metavar="FILE")
    create.add_argument(
        "--files", metavar="LIST", help="pack only what this file lists, one path in DIR a line"
    )
    create.set_defaults(func=_create)
    add = actions.add_parser("add", help="append a layer file to an image")
    add.add_argument("image", metavar="IMAGE")
    add.add_argument("file", metavar="FILE")
    add_wait(add)
    add.set_defaults(func=_add)
    commit = actions.add_parser(
        "commit",
        help="make a layer of what was changed",
        description="Make a layer of what was changed: in the image itself (binary), in its data "
        "directory as the next of its managed layers (layer), or in a file.",
    )
    commit.add_argument("image", metavar="IMAGE")
    commit.add_argument("mode", choices=MODES)
    commit.add_argument("path", metavar="PATH", nargs="?", help="for 'file'")
    add_wait(commit)
    commit.set_defaults(func=_commit)
    layer_inspect.add_parsers(actions)
    layer_chain.add_parsers(actions)


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-layer create | add | commit | list`."""
    verb, rest = operation(words, "Missing op for 'fim-layer' (create,add,commit,list)")
    if verb == "create":
        if len(rest) != 2:
            raise WordsError(
                "create requires exactly two arguments (/path/to/dir /path/to/file.layer)"
            )
        return _image_create(rest[0], rest[1])
    if verb == "add":
        if len(rest) != 1:
            raise WordsError("add requires exactly one argument (/path/to/file.layer)")
        return _image_add(image, rest[0])
    if verb == "commit":
        return _image_commit(image, rest)
    if verb == "list":
        refuse_trailing("fim-layer list", rest)
        return layer_inspect.list_for_image(image)
    raise WordsError("Invalid layer operation")


def _image_create(directory: str, output: str) -> int:
    messages.info("Gathering files to compress...")
    with failing("create layer"):
        _check_source(directory)
        level = compression_level()
        messages.info(f"Compression level: '{level}'")
        messages.info(f"Compress filesystem to '{output}'")
        facts = create(directory, output, level)
    print_notes(facts, messages.warning)
    messages.info("Filesystem created without errors")
    return 0


def _image_add(image: str, file: str) -> int:
    with failing("add layer"):
        facts = add(image, file)
    print_notes(facts, messages.warning)
    messages.info(f"Included novel layer from file '{file}'")
    return 0


def _image_commit(image: str, words: list[str]) -> int:
    mode, rest = operation(words, "Missing op for 'commit' (binary,layer,file)")
    if mode not in MODES:
        raise WordsError("Invalid commit operation")
    path = ""
    if mode == "file":
        if not rest:
            raise WordsError("Missing path for 'file' operation")
        path = rest.pop(0)
    refuse_trailing("fim-layer commit", rest)
    messages.info("Gathering files to compress...")
    level = compression_level()
    messages.info(f"Compression level: '{level}'")
    with failing("commit layer"):
        if mode == "file" and os.path.lexists(path):
            raise ClientError("Destination file already exists")
        facts = commit(image, mode, path, level)
    print_notes(facts, messages.warning)
    made = facts["Result"]
    if "empty" in made:
        messages.info("Nothing was changed, so no layer was made")
        return 0
    place = os.fsdecode(bytes(made["path"][1]))
    messages.info(f"Compress filesystem to '{place}'")
    if mode == "binary":
        messages.info(f"Included novel layer from file '{place}'")
        messages.info("Filesystem appended to binary without errors")
    else:
        if mode == "layer":
            messages.info(f"Layer number: {made['number'][1]}")
            messages.info(f"Layer path: {place}")
        messages.info(f"Layer saved to '{place if mode == 'layer' else path}'")
    if mode == "file":
        messages.info(f"To see its content again: FIM_LAYERS={place}, or 'fim-layer add {place}'")
    messages.info("Finished erasing files")
    return 0


def _create(arguments: argparse.Namespace) -> int:
    _check_source(arguments.directory)
    facts = create(arguments.directory, arguments.output, compression_level(), arguments.files)
    print_notes(facts)
    print(f"{printable(arguments.output)}: {size_text(facts['Result']['size'][1])}")
    return 0


def _add(arguments: argparse.Namespace) -> int:
    facts = add(arguments.image, arguments.file, arguments.wait)
    print_notes(facts)
    size = size_text(facts["Result"]["size"][1])
    print(f"{printable(arguments.image)}: a layer of {size} was added")
    return 0


def _commit(arguments: argparse.Namespace) -> int:
    if (arguments.mode == "file") != (arguments.path is not None):
        raise ClientError("'file' needs a PATH, and nothing else takes one")
    level, path = compression_level(), arguments.path or ""
    facts = commit(arguments.image, arguments.mode, path, level, arguments.wait)
    print_notes(facts)
    made = facts["Result"]
    if "empty" in made:
        print("nothing was changed, so no layer was made")
        return 0
    place = printable(os.fsdecode(bytes(made["path"][1])))
    print(f"{place}: a layer of {size_text(made['size'][1])}")
    return 0


def _check_source(directory: str) -> None:
    if not os.path.lexists(directory):
        raise ClientError(f"Source directory '{directory}' does not exist")
    if not os.path.isdir(directory):
        raise ClientError(f"Source '{directory}' is not a directory")


def create(directory: str, output: str, level: int, files: str | None = None) -> dict[str, Any]:
    """Have the daemon make a layer file; return the job's properties."""
    options: dict[str, tuple[str, Any]] = {"level": ("u", level)}
    if files is not None:
        options["files"] = ("ay", _absolute(files))
    with Daemon() as daemon:

        def start() -> str:
            body = (_absolute(directory), _absolute(output), options)
            return str(daemon.manager("CreateLayer", "ayaya{sv}", body)[0])

        return follow(daemon, f"compressing (level {level})", start)


def add(image: str, file: str, wait: float = 0) -> dict[str, Any]:
    """Have the daemon append a layer file to an image; return the job's properties."""
    body: tuple[bytes, dict[str, Any]] = (_absolute(file), {})
    return layer_chain.job(image, "adding", "AddLayer", "aya{sv}", body, wait)


def commit(image: str, mode: str, path: str, level: int, wait: float = 0) -> dict[str, Any]:
    """Have the daemon commit what was changed; return the job's properties."""
    options = {**layer_inspect.stack_options(image), "level": ("u", level)}
    if path:
        options["path"] = ("ay", _absolute(path))
    title = f"committing (level {level})"
    return layer_chain.job(image, title, "Commit", "sa{sv}", (mode, options), wait)


def _absolute(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))
