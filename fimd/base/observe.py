"""Things by key, whose coming, changing and going others are told of."""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Event(Enum):
    """What happened to a thing."""

    ADDED = auto()
    CHANGED = auto()
    REMOVED = auto()


class Observable(Protocol[T_co]):
    """What a collection is to those who only follow it."""

    def subscribe(self, observer: Callable[[Event, str, T_co], None]) -> None:
        """See Collection.subscribe."""

    def __iter__(self) -> Iterator[T_co]: ...


class Collection(Generic[T]):
    """A dictionary with observers. Keys are the identifiers that clients see."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._observers: list[Callable[[Event, str, T], None]] = []

    def subscribe(self, observer: Callable[[Event, str, T], None]) -> None:
        """Have `observer` called at every event, in order, from the event loop.

        What is there already has been added, as far as the observer knows.
        """
        self._observers.append(observer)
        for key, item in list(self._items.items()):
            observer(Event.ADDED, key, item)

    def _tell(self, event: Event, key: str, item: T) -> None:
        for observer in self._observers:
            observer(event, key, item)

    def add(self, key: str, item: T) -> None:
        """Add a thing, in place of the one that had its key."""
        self.remove(key)
        self._items[key] = item
        self._tell(Event.ADDED, key, item)

    def put(self, key: str, item: T) -> None:
        """Add a thing, or let it stand for the one that has its key, which has changed thereby."""
        known = key in self._items
        self._items[key] = item
        self._tell(Event.CHANGED if known else Event.ADDED, key, item)

    def changed(self, key: str) -> None:
        """Tell that the thing's facts are others now; nothing where it has gone."""
        if key in self._items:
            self._tell(Event.CHANGED, key, self._items[key])

    def remove(self, key: str) -> None:
        """Take a thing out; nothing where it has gone."""
        if key in self._items:
            self._tell(Event.REMOVED, key, self._items.pop(key))

    def get(self, key: str) -> T | None:
        """Return the thing, or None."""
        return self._items.get(key)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)
