"""The history of a job: its earlier attempts as tries, money and failures."""

from types import SimpleNamespace
from typing import Any

from headgate.shared.job.history import CUT_OFF, history_of, late_message
from headgate.shared.job.result import FailedAttempt

ROW: dict[str, Any] = {
    "model": "m", "state": "failed", "code": "overloaded", "message": "busy", "http_status": 529,
    "waited_ms": 5, "cost_pico_usd": 0, "fence": 1,
}  # fmt: skip


def row(**changed: Any) -> Any:
    return SimpleNamespace(**(ROW | changed))


def test_every_attempt_counts_and_what_is_known_is_added_up() -> None:
    history = history_of(
        [
            row(),
            row(state="answered", code=None, cost_pico_usd=70),
            row(model="n", state="unknown", code="timeout", cost_pico_usd=None),
            row(model="o", state="open", code=None, message=None, cost_pico_usd=None),
        ],
        share_pico_usd=3,
    )
    assert (history.attempts, history.cost_pico_usd) == (4, 73)
    assert history.unknown_models == ["n", "o"]
    assert [(f.model, f.code) for f in history.failures] == [
        ("m", "overloaded"), ("n", "timeout"), ("o", "internal"),
    ]  # fmt: skip
    assert history.failures[-1].message == CUT_OFF


def test_the_part_of_an_answer_that_broke_off_costs_and_its_billing_stays_unknown() -> None:
    history = history_of([row(state="unknown", code="cancelled", cost_pico_usd=8)])
    assert (history.cost_pico_usd, history.unknown_models) == (8, ["m"])


def test_one_unknown_price_makes_the_sum_unknown() -> None:
    rows = [row(state="answered", cost_pico_usd=None), row(state="answered", cost_pico_usd=5)]
    assert history_of(rows).cost_pico_usd is None


def test_failures_before_a_job_was_reopened_are_forgiven_and_still_cost() -> None:
    history = history_of([row(cost_pico_usd=9), row(fence=2)], forgiven_fence=1)
    assert (history.attempts, history.cost_pico_usd, len(history.failures)) == (2, 9, 1)


def test_the_end_of_a_late_job_names_its_last_fault_and_no_model_that_was_only_down() -> None:
    plain = "the deadline passed while it waited"
    asked = FailedAttempt("m", "connection", "Connection refused", None, 0)
    down = FailedAttempt("n", "breaker_open", "it has failed too often", None, 0)
    assert late_message(plain, []) == plain
    assert late_message(plain, [asked, down]) == (
        f"{plain}; its last attempt, at m, failed with connection: Connection refused"
    )
    assert late_message(plain, [down]) == f"{plain}; n was down"
