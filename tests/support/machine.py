"""Lives of a state machine against a model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


@dataclass(kw_only=True)
class Lasting:
    """A world that lives on: each example goes on where the last one ended.

    Hypothesis tries again what failed, and the world goes another way then, for which hypothesis
    blames the strategies (FlakyStrategyDefinition). So nothing more happens once something has
    failed, and `live` raises that first failure.
    """

    history: list[str] = field(default_factory=list)
    failure: Exception | None = None

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Something that happens to the world."""
        if self.failure is not None:
            raise self.failure
        self.history.append(what)
        try:
            yield
        except Exception as error:
            error.add_note("\n".join(["what happened before:", *self.history[-40:]]))
            self.failure = error
            raise


def live(
    life: Callable[[], RuleBasedStateMachine],
    examples: int,
    steps: int,
    *,
    world: Lasting | None = None,
    derandomize: bool = False,
) -> None:
    """Run lives of some steps each, in one `world` if it lives on.

    With `derandomize` the same happens every time.
    """
    configuration = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        deadline=None,
        phases=[Phase.generate],  # a failure can't be replayed in a world that lives on
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=False,
    )
    try:
        run_state_machine_as_test(life, settings=configuration)  # type: ignore[arg-type]  # a factory
    except Exception:
        if world is not None and world.failure is not None:
            raise world.failure from None
        raise
