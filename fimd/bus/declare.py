"""Declaring D-Bus interfaces: one class each, one line for a member.

dbus-next's own service classes know no names for out-arguments, no sender, and no annotations.
Here an interface is a class whose functions are marked by `method`, `prop` and `signal`:

    class ManagerInterface(Interface):
        name = "org.flatimage.Fim1.Manager"

        @method("ay image, a{sv} options", "o instance")
        async def StartInstance(
            self, call: Call, image: bytes, options: Options
        ) -> list[object]: ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from dbus_next.signature import Variant

from fimd.bus.callers import Caller

Function = TypeVar("Function", bound=Callable[..., Any])
Arguments = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Call:
    """Who calls."""

    caller: Caller


@dataclass(frozen=True)
class Member:
    """A method, a property or a signal, with the names and types of its arguments."""

    kind: str
    inputs: Arguments = ()
    outputs: Arguments = ()
    constant: bool = False


def _arguments(text: str) -> Arguments:
    """Read "a{sv} options, o path" into names and types."""
    pairs = (item.split() for item in text.split(",") if item.strip())
    return tuple((name, signature) for signature, name in pairs)


def method(inputs: str = "", outputs: str = "") -> Callable[[Function], Function]:
    """Make a coroutine function a D-Bus method; it returns the list of its out-arguments."""
    return _mark(Member("method", _arguments(inputs), _arguments(outputs)))


def prop(signature: str, *, constant: bool = False) -> Callable[[Function], Function]:
    """Make a function a readable D-Bus property."""
    return _mark(Member("property", outputs=(("", signature),), constant=constant))


def signal(arguments: str) -> Callable[[Function], Function]:
    """Declare a signal; its function has no body and is never called."""
    return _mark(Member("signal", outputs=_arguments(arguments)))


def _mark(member: Member) -> Callable[[Function], Function]:
    def mark(function: Function) -> Function:
        function._dbus = member  # type: ignore[attr-defined]  # noqa: SLF001
        return function

    return mark


class Interface:
    """One D-Bus interface of one object."""

    name: ClassVar[str]
    members: ClassVar[dict[str, Member]]
    _constants: dict[str, Variant] | None = None

    def __init_subclass__(cls) -> None:
        cls.members = {
            name: function._dbus  # noqa: SLF001 - the mark that _mark left
            for name, function in vars(cls).items()
            if hasattr(function, "_dbus")
        }

    def properties(self) -> dict[str, Variant]:
        """Return every property's value now."""
        if self._constants is None:
            self._constants = self._read(constant=True)
        return {**self._constants, **self.changing()}

    def changing(self) -> dict[str, Variant]:
        """Return the values of the properties that change."""
        return self._read(constant=False)

    def _read(self, *, constant: bool) -> dict[str, Variant]:
        return {
            name: Variant(member.outputs[0][1], getattr(self, name)())
            for name, member in self.members.items()
            if member.kind == "property" and member.constant is constant
        }
