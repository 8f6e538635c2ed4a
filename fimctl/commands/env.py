"""`fimctl env`, and `fim-env` of an image: the environment variables that its programs get."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fimctl import messages
from fimctl.environment import data_of
from fimctl.errors import WordsError
from fimctl.stored import print_stored, read, reserved_offset, update, write
from fimctl.table import say
from fimctl.words import operation, refuse_trailing
from fimd.base.places import find_global
from fimd.flatimage.reserved import ENVIRONMENT
from fimd.launch.expansion import expand_value
from fimd.launch.place import Place, exported

Say = Callable[[str], None]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "env",
        help="which environment variables an image's programs get",
        description="Which environment variables an image's programs get. Values may hold "
        "$VARIABLES of whoever starts the image, and $(commands), which are run inside.",
    )
    actions = parser.add_subparsers(required=True, metavar="add|set|del|clear|list")
    for verb, what in (("add", "add variables"), ("set", "store these and no others")):
        action = actions.add_parser(verb, help=what)
        action.add_argument("image", metavar="IMAGE")
        action.add_argument("words", metavar="KEY=VALUE", nargs="+")
        store = add if verb == "add" else replace
        action.set_defaults(func=lambda given, do=store: do(given.image, given.words, say))
    action = actions.add_parser("del", help="remove variables")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("words", metavar="KEY", nargs="+")
    action.set_defaults(func=lambda given: delete(given.image, given.words, say))
    action = actions.add_parser("clear", help="remove all")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: clear(given.image))
    action = actions.add_parser("list", help="print the variables, expanded")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: show(given.image))


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-env add|set K=V... | del K... | clear | list`."""
    verb, rest = operation(words, "Missing op for 'fim-env' (add,del,list,set,clear)")
    if verb in {"add", "set", "del"}:
        if not rest:
            raise WordsError(f"Missing arguments for '{verb.upper()}'")
        do = {"add": add, "set": replace, "del": delete}[verb]
        return do(image, rest, messages.info)
    if verb not in {"clear", "list"}:
        raise WordsError("Invalid env operation")
    refuse_trailing("fim-env", rest)
    return clear(image) if verb == "clear" else show(image)


def _parse(words: Sequence[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise WordsError(f"Variable assignment '{word}' is invalid")
    pairs = (word.partition("=") for word in words)
    return {key: value for key, _, value in pairs}


def add(image: str, words: Sequence[str], say: Say) -> int:
    """Store variables over those that are there."""
    variables = _parse(words)
    update(image, ENVIRONMENT, lambda stored: {**stored, **variables})
    return _included(variables, say)


def replace(image: str, words: Sequence[str], say: Say) -> int:
    """Store variables in place of those that are there."""
    variables = _parse(words)
    write(image, ENVIRONMENT, variables)
    return _included(variables, say)


def _included(variables: Mapping[str, str], say: Say) -> int:
    for key, value in variables.items():
        say(f"Included variable '{key}' with value '{value}'")
    return 0


def delete(image: str, keys: Sequence[str], say: Say) -> int:
    """Remove variables by their keys, as they were written."""
    stored: dict[str, str] = {}

    def changed(variables: Mapping[str, str]) -> Mapping[str, str]:
        stored.update(variables)
        return {key: value for key, value in variables.items() if key not in keys}

    update(image, ENVIRONMENT, changed)
    for key in keys:
        known = stored.pop(key, None) is not None
        say(f"Erase key '{key}'" if known else f"Key '{key}' not found for deletion")
    return 0


def clear(image: str) -> int:
    """Remove every variable."""
    write(image, ENVIRONMENT, {})
    return 0


def show(image: str) -> int:
    """Print the variables as a start would expand them now; commands wait for the start."""
    stored = read(image, ENVIRONMENT)
    if not stored:
        return 0
    variables = {**os.environ, **exported(_place(image), os.environ)}
    for key, value in sorted(stored.items()):
        word = expand_value(key, value, variables)
        print_stored(os.fsencode(f"{key}={value if word.code else word.text}"))
    return 0


def _place(image: str) -> Place:
    """Return where this process would live if it were an instance."""
    data = data_of(image)
    everybody = find_global()
    app = os.path.join(everybody, "app", f"u{os.getuid()}")
    return Place(
        image=os.path.realpath(image),
        data=data,
        layers=os.path.join(data, "layers"),
        directory=os.path.join(app, "instance", str(os.getpid())),
        app=app,
        global_directory=everybody,
        pid=os.getpid(),
        reserved_offset=reserved_offset(image),
    )
