"""Lives of a state machine against a model."""

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def live(
    life: Callable[[], RuleBasedStateMachine],
    examples: int,
    steps: int,
    *,
    derandomize: bool = False,
) -> None:
    """Run lives of some steps each. With `derandomize` the same happens every time."""
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
    run_state_machine_as_test(life, settings=configuration)  # type: ignore[arg-type]  # a factory
