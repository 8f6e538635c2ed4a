"""`fimctl bind`, and `fim-bind` of an image: paths of the host that its programs see."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from fimctl import messages
from fimctl.errors import WordsError
from fimctl.stored import print_stored, read, update
from fimctl.words import operation
from fimd.flatimage.reserved import BINDINGS
from fimd.flatimage.settings import Binding, BindingType, encode_bindings

Say = Callable[[str], None]

TYPES: Final = tuple(kind.value for kind in BindingType)


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bind",
        help="which paths of the host an image's programs see",
        description="Which paths of the host an image's programs see. Paths may hold $VARIABLES, "
        "which each start expands; one that is not there then is left out.",
    )
    actions = parser.add_subparsers(required=True, metavar="add|del|list")
    action = actions.add_parser("add", help="add a binding")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("type", choices=TYPES, help="read only, writable, or with device files")
    action.add_argument("source", metavar="SOURCE", help="the path on the host")
    action.add_argument("target", metavar="TARGET", help="the path inside")
    action.set_defaults(func=_add_given)
    action = actions.add_parser("del", help="remove a binding")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("index", metavar="INDEX", type=int, help="as list numbers them")
    action.set_defaults(func=lambda given: delete(given.image, given.index, print))
    action = actions.add_parser("list", help="print the bindings, as JSON")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: show(given.image))


def _add_given(given: Any) -> int:
    binding = Binding(BindingType(given.type), given.source, given.target)
    return add(given.image, binding, print)


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-bind add <ro|rw|dev> <src> <dst> | del <index> | list`."""
    verb, rest = operation(words, "Missing op for 'fim-bind' command (add,del,list)")
    if verb == "add":
        return add(image, _parse(rest), messages.info)
    if verb == "del":
        return delete(image, _index(rest), messages.info)
    if verb == "list":
        if rest:
            raise WordsError("'list' command takes no arguments")
        return show(image)
    raise WordsError("Invalid bind operation")


def _parse(words: Sequence[str]) -> Binding:
    count = "Incorrect number of arguments for 'add' (<ro,rw,dev> <src> <dst>)"
    if not words:
        raise WordsError(count)
    if words[0].lower() not in TYPES:
        raise WordsError("Invalid bind type")
    if len(words) != 3:
        raise WordsError(count)
    return Binding(BindingType(words[0].lower()), words[1], words[2])


def _index(words: Sequence[str]) -> int:
    if len(words) != 1:
        raise WordsError("Incorrect number of arguments for 'del' (<index>)")
    if not (words[0].isascii() and words[0].isdigit()):
        raise WordsError("Index argument for 'del' is not a number")
    return int(words[0][:20])


def add(image: str, binding: Binding, say: Say) -> int:
    """Store one more binding."""
    stored = update(image, BINDINGS, lambda bindings: (*bindings, binding))
    say(f"Binding index is '{len(stored) - 1}'")
    return 0


def delete(image: str, index: int, say: Say) -> int:
    """Remove a binding; those after it move up."""
    before = 0

    def changed(bindings: tuple[Binding, ...]) -> tuple[Binding, ...]:
        nonlocal before
        before = len(bindings)
        return bindings[:index] + bindings[index + 1 :] if 0 <= index < before else bindings

    update(image, BINDINGS, changed)
    if 0 <= index < before:
        say(f"Erase element with index '{index}'")
    else:
        say(f"No element with index '{index}' found")
    return 0


def show(image: str) -> int:
    """Print the bindings as they are stored."""
    bindings = read(image, BINDINGS)
    if bindings:
        print_stored(encode_bindings(bindings))
    return 0
