"""Observers of a collection are told what comes, changes and goes."""

from fimd.base.observe import Collection, Event


def test_observers_see_every_event_in_order() -> None:
    things: Collection[str] = Collection()
    seen: list[tuple[Event, str, str]] = []
    things.subscribe(lambda *event: seen.append(event))
    things.add("k", "one")
    things.changed("k")
    things.add("k", "two")
    things.remove("k")
    things.remove("k")
    things.changed("k")
    assert seen == [
        (Event.ADDED, "k", "one"),
        (Event.CHANGED, "k", "one"),
        (Event.REMOVED, "k", "one"),
        (Event.ADDED, "k", "two"),
        (Event.REMOVED, "k", "two"),
    ]


def test_an_observer_that_comes_late_is_told_of_what_is_there() -> None:
    things: Collection[str] = Collection()
    things.add("k", "one")
    seen: list[tuple[Event, str, str]] = []
    things.subscribe(lambda *event: seen.append(event))
    assert seen == [(Event.ADDED, "k", "one")]
    assert list(things) == ["one"]
    assert things.get("other") is None
