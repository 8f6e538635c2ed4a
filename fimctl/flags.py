"""What `fim-perms` and `fim-unshare` have in common: a set of named flags in an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from fimctl.errors import WordsError
from fimctl.stored import read, update
from fimctl.words import operation, refuse_trailing
from fimd.flatimage.reserved import Field
from fimd.flatimage.settings import Permission, Unshare, without

F = TypeVar("F", Permission, Unshare)

CHANGES: Final = ("add", "del", "set")


@dataclass(frozen=True)
class Flags(Generic[F]):
    """A command about flags: its words, and where the flags are stored."""

    command: str
    operations: str
    """As the message lists them that misses one."""
    noun: str
    """As in "Permission 'all' should not be used with others"."""
    summary: str
    description: str
    kind: type[F]
    field: Field[F]
    apart: F
    """Those that 'all' does not stand for."""

    def image_command(self, image: str, words: list[str]) -> int:
        """Do `add|del|set <a,b,...> | clear | list`."""
        verb, rest = operation(words, f"Missing op for fim-{self.command} ({self.operations})")
        if verb in CHANGES:
            if not rest:
                raise WordsError(f"No arguments for '{verb.upper()}' command")
            refuse_trailing(f"fim-{self.command}", rest[1:])
            return self.change(image, verb, rest[0].split(","))
        if verb not in {"clear", "list"}:
            raise WordsError(f"Invalid {self.command} operation")
        refuse_trailing(f"fim-{self.command}", rest)
        return self.clear(image) if verb == "clear" else self.show(image)

    def add_parser(self, commands: Any) -> None:
        """Add the command's twin of fimctl."""
        names = ", ".join(sorted(flag.name.lower() for flag in self.kind if flag.name))
        parser = commands.add_parser(
            self.command, help=self.summary, description=f"{self.description} There are: {names}."
        )
        actions = parser.add_subparsers(required=True, metavar="add|del|set|clear|list")
        for verb, what in (
            ("add", "add some to the stored ones"),
            ("del", "remove some from the stored ones"),
            ("set", "store these and no others"),
        ):
            action = actions.add_parser(verb, help=what)
            action.add_argument("image", metavar="IMAGE")
            action.add_argument("names", metavar="NAME[,NAME...]", help=self._all())
            action.set_defaults(func=partial(self._changed, verb))
        alone: Sequence[tuple[str, str, Callable[[str], int]]] = (
            ("clear", "remove all", self.clear),
            ("list", "print the stored ones", self.show),
        )
        for verb, what, do in alone:
            action = actions.add_parser(verb, help=what)
            action.add_argument("image", metavar="IMAGE")
            action.set_defaults(func=partial(_alone, do))

    def _all(self) -> str:
        names = ", ".join(
            flag.name.lower() for flag in self.kind if flag.name and flag in self.apart
        )
        return f"'all' stands for each{names and f' but {names}'}"

    def _changed(self, verb: str, given: Any) -> int:
        return self.change(given.image, verb, given.names.split(","))

    def parse(self, names: Sequence[str]) -> F:
        """Return the flags so named, in any case. Raises WordsError; one bad name rejects all."""
        invalid = f"Invalid {self.noun.lower()}"
        known = {flag.name: flag for flag in self.kind}
        wanted = [name.upper() for name in names]
        for name in wanted:
            if name == "NONE":
                raise WordsError(f"{invalid} 'NONE'")
            if name not in known and name != "ALL":
                raise WordsError(invalid)
        if "ALL" in wanted:
            if len(wanted) > 1:
                raise WordsError(f"{self.noun} 'all' should not be used with others")
            wanted = [name for name, flag in known.items() if name and flag not in self.apart]
        flags = self.kind(0)
        for name in wanted:
            flags |= known[name]
        return flags

    def change(self, image: str, verb: str, names: Sequence[str]) -> int:
        """Store the flags with some added, removed, or instead."""
        named = self.parse(names)

        def changed(stored: F) -> F:
            if verb == "add":
                return stored | named
            return without(stored, named) if verb == "del" else named

        update(image, self.field, changed)
        return 0

    def clear(self, image: str) -> int:
        """Remove every flag."""
        update(image, self.field, lambda _: self.kind(0))
        return 0

    def show(self, image: str) -> int:
        """Print the stored flags by name."""
        stored = read(image, self.field)
        for name in sorted(flag.name.lower() for flag in self.kind if flag.name and flag in stored):
            print(name)
        return 0


def _alone(do: Callable[[str], int], given: Any) -> int:
    return do(given.image)
