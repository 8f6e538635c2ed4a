"""Timing things beside what they are compared with.

A machine's speed changes from minute to minute, so things are measured in turn, round after round.
A figure is the median of its rounds, and a ratio is the median of the rounds' ratios.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping


class Rounds:
    """What was measured, by name, round after round."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def note(self, name: str, value: float) -> None:
        """Add a value to a name's rounds."""
        self._values[name].append(value)

    def median(self, name: str) -> float:
        """Return the middle one of a name's values."""
        return statistics.median(self._values[name])

    def ratio(self, name: str, beside: str) -> float:
        """Return the middle one of the ratios of two names' values in each round."""
        pairs = zip(self._values[name], self._values[beside], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def seconds(action: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def rate(action: Callable[[], int]) -> float:
    """Return how much of its work, which it counts, something does a second."""
    began = time.perf_counter()
    done = action()
    return done / (time.perf_counter() - began)


def in_turn(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    measure: Callable[[Callable[[], object]], float] = seconds,
) -> Rounds:
    """Measure actions in turn, once to warm up and then `rounds` times; every other one backwards.

    What one leaves to the next, such as a busy disk, so falls on each of them.
    """
    measured = Rounds()
    for action in actions.values():
        action()
    for number in range(rounds):
        for name in list(actions)[:: -1 if number % 2 else 1]:
            measured.note(name, measure(actions[name]))
    return measured


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """Fit y = c·x^k by least squares of the logarithms, and return k: 1 is linear."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    slope, _ = statistics.linear_regression(*zip(*logs, strict=True))
    return slope
