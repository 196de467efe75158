"""State machines against a real server: scripts and a model of them take the same steps."""

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def holds_in_any_order(
    machine: type[RuleBasedStateMachine],
    *,
    runs: int = 40,
    steps: int = 40,
    shrinks: bool = True,
    **on_this_server: Any,
) -> None:
    """The invariants of the machine have held over so many runs of so many steps.

    `on_this_server`: attributes of the machine for this run. Without `shrinks` a failure is told as
    it was found: where the server's clock goes on, looking for a shorter one would take minutes.
    """
    chosen: dict[str, Any] = {} if shrinks else {"phases": [Phase.generate]}
    run_state_machine_as_test(
        type(machine.__name__, (machine,), on_this_server),
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **chosen,
        ),
    )
