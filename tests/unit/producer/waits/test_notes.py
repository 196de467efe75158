"""When a command that waits tells what it waits for."""

from headgate.producer.waits.notes import WaitNotes
from headgate.shared.job.waiting_for import WaitingFor

LIMIT = WaitingFor("limit", "pool/openai/gpt-4o", help="raise it")
DOWN = WaitingFor("model_down", "openai/gpt-4o")


def test_a_reason_is_told_after_3_s_and_each_one_once_a_minute() -> None:
    told: list[str] = []
    notes = WaitNotes(told.append)
    notes.show(LIMIT, 2.9)
    notes.show(None, 10)
    assert told == []
    for reason in (LIMIT, LIMIT, DOWN, LIMIT, DOWN):
        notes.show(reason, 3.0)
    assert told == [
        "waiting for the limit of openai/gpt-4o; raise it",
        "waiting for openai/gpt-4o, which is down",
    ]


def test_that_no_worker_runs_at_all_is_left_to_the_part_that_may_start_one() -> None:
    told: list[str] = []
    notes = WaitNotes(told.append)
    notes.show(WaitingFor("no_worker", "q", "no worker runs"), 60)
    assert told == []
    notes.show(WaitingFor("no_worker", "q", "the workers that run serve other queues"), 60)
    assert len(told) == 1
