"""Users can read of every limit, in the words that the code has for it."""

from pathlib import Path

from fimd.base.limits import Limit
from fimd.casefold.limits import VIEW_LIMITS
from fimd.overlays import BACKENDS

CONCEPTS = Path(__file__).resolve().parents[2] / "docs" / "concepts.md"


def row(name: str, limit: Limit) -> str:
    helps = " Not with the case-insensitive view on top." if limit.view_helps else ""
    happens = limit.happens[0].upper() + limit.happens[1:]
    return f"| {name} | {limit.name} | {happens}.{helps} | {limit.reason} |"


def table() -> str:
    rows = [row(f"`{name}`", item) for name, backend in BACKENDS.items() for item in backend.limits]
    rows += [row("the view", item) for item in VIEW_LIMITS]
    return "\n".join(["| On | What | What happens | Why |", "| --- | --- | --- | --- |", *rows])


def test_the_documented_limits_are_those_of_the_code() -> None:
    assert table() in CONCEPTS.read_text(), f"put this there:\n{table()}"


def test_a_limit_is_named_once_for_each_overlay() -> None:
    for limits in (*(backend.limits for backend in BACKENDS.values()), VIEW_LIMITS):
        names = [limit.name for limit in limits]
        assert len(names) == len(set(names))
