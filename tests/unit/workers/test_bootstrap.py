"""The task makes a delivery of any message, or gives a reason that quotes nothing of it."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.catalog import catalog
from headgate.shared.errors import InvalidRequest, UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.workers.bootstrap import WorkerParts
from headgate.workers.celery.running_job import RunningJob
from headgate.workers.delivery.message import Arrival, Readable, read
from headgate.workers.tasks import JobTask
from tests.support.poison import ODD_NAMES, ODD_VALUES, hostile, mutated
from tests.support.rig import STANDARD, envelope
from tests.unit.workers.delivery.test_message import JSON

SECRET = "SWORDFISH"  # noqa: S105  # what no reason may quote


def job_task() -> JobTask:
    """Return the task with the built-in catalog; it is not opened."""
    task = JobTask()
    settings = SimpleNamespace(model="gpt-4o-mini")
    pipeline = SimpleNamespace(clock_ms=now_ms)
    parts = {"catalog": catalog.load(None), "settings": settings, "pipeline": pipeline}
    task.parts = cast("WorkerParts", SimpleNamespace(**parts))
    return task


JOB_TASK = job_task()


def meet(job_id: str, args: Any, kwargs: Any) -> Envelope | str:
    """Return the envelope that the task makes of a call, or the reason why it makes none."""
    content = Readable({"id": job_id}, [args, kwargs, {}], None)
    running = RunningJob(Arrival(1, job_id, STANDARD, 0, content))
    try:
        delivery = JOB_TASK._delivery(running)
    except UnreadableMessage as error:
        return error.reason
    try:
        delivery.envelope.encode()  # as the claim does for a job without a row
    except InvalidRequest as error:
        return f"{error.field}: {error.remedy}"
    return delivery.envelope


@given(args=st.lists(JSON, max_size=2), kwargs=st.dictionaries(st.text(), JSON, max_size=3))
def test_any_arguments_are_answered(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert meet("j1", args, kwargs)


@given(
    place=st.sampled_from([*ODD_NAMES, "id", "prompt", "model_class", "submitted_at_ms"]),
    value=JSON | st.sampled_from(ODD_VALUES),
    inside=st.booleans(),
)
def test_any_value_in_any_field_of_an_envelope_is_answered(
    place: str, value: Any, inside: bool
) -> None:
    fields = json.loads(envelope("j1").encode())
    (fields["request"] if inside else fields)[place] = value
    met = meet("j1", [fields], {})
    if isinstance(met, Envelope):
        assert 0 <= met.submitted_at_ms < met.deadline_at_ms < 2**63
        assert max(map(len, (met.id, met.model, met.request.tenant))) <= 128


def test_what_was_mutated_or_made_to_harm_is_answered_and_no_reason_quotes_it() -> None:
    for raw in [*mutated(2000, SECRET.encode(), seed=1), *hostile(SECRET.encode())]:
        try:
            content = read(raw)
        except UnreadableMessage as error:
            met: Envelope | str = error.reason
        else:
            args, kwargs, _ = content.body
            met = meet(content.headers["id"], args, kwargs)
        if isinstance(met, str):
            assert SECRET not in met
            assert met.isprintable()
            assert len(met) < 500


@pytest.mark.parametrize("depth", [99, 100, 101, 250, 1000])
def test_metadata_has_a_bound_of_depth(depth: int) -> None:
    deep: Any = "x"
    for _ in range(depth - 1):
        deep = [deep]
    fields = json.loads(envelope("j1").encode())
    fields["request"]["metadata"] = {"deep": deep}
    assert isinstance(meet("j1", [fields], {}), str) is (depth > 100)
