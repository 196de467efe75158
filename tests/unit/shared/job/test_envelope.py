"""Envelopes and results outlive deployments: the release before and after can read them."""

import uuid
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.errors import InvalidRequest, NewerEnvelope, UnreadableMessage
from headgate.shared.job.encoding import MAX_REQUEST_BYTES
from headgate.shared.job.envelope import NEWEST_VERSION, Envelope
from headgate.shared.job.ids import new_id, now_ms, rfc3339
from headgate.shared.job.request import request_from
from headgate.shared.job.result import ErrorReport, FailedAttempt, Result, Usage
from tests.support.rig import envelope

NEXT = NEWEST_VERSION + 1

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


@given(
    prompt=TEXT,
    tenant=st.text("abc-\u00e9", min_size=1, max_size=128),
    metadata=st.dictionaries(TEXT, st.integers(-(2**60), 2**60) | TEXT | st.none(), max_size=3),
    deadline_s=st.floats(0.001, 1e6),
)
def test_what_was_encoded_is_decoded(
    prompt: str, tenant: str, metadata: dict[str, Any], deadline_s: float
) -> None:
    job = envelope(prompt=prompt, tenant=tenant, metadata=metadata, deadline_s=deadline_s)
    assert Envelope.decode(orjson.loads(job.encode())) == job


def test_fields_of_a_newer_deployment_are_skipped() -> None:
    job = envelope()
    fields = orjson.loads(job.encode())
    fields["colour"] = "blue"
    fields["request"]["mood"] = "good"
    fields["request"]["cache"] = {"scope": "team"}
    assert Envelope.decode(fields) == job


def test_an_envelope_of_the_next_version_says_until_when_it_may_wait() -> None:
    fields = orjson.loads(envelope(deadline_s=60).encode()) | {"v": NEXT, "body": "in a new form"}
    with pytest.raises(NewerEnvelope) as raised:
        Envelope.decode(fields)
    assert raised.value.deadline_at_ms == fields["submitted_at_ms"] + 60_000


@pytest.mark.parametrize(
    ("fields", "sample", "version"),
    [
        ({}, 1, 1), ({"params": {"n": 1}}, 1, 1), ({"params": {"n": 2}}, 1, 2), ({}, 2, 2),
        ({"dialect": "anthropic"}, 1, 3),
    ],
)  # fmt: skip
def test_only_what_older_workers_would_misread_is_of_the_newest_version(
    fields: dict[str, Any], sample: int, version: int
) -> None:
    job = envelope(**fields).model_copy(update={"sample": sample})
    encoded = orjson.loads(job.encode())
    assert encoded["v"] == version
    assert ("sample" in encoded) == (sample > 1)
    again = Envelope.decode(encoded)
    assert (again.sample, again.request) == (sample, job.request)
    assert orjson.loads(again.encode()) == encoded


@pytest.mark.parametrize(
    "laid_over",
    [
        {"v": NEXT + 1}, {"v": NEXT, "submitted_at_ms": None},
        {"v": NEXT, "submitted_at_ms": 10**18},
        {"v": NEXT, "request": {"deadline_s": -1}}, {"v": NEXT, "request": {"deadline_s": "1"}},
    ],
)  # fmt: skip
def test_a_newer_version_that_says_nothing_of_its_time_is_unreadable(
    laid_over: dict[str, Any],
) -> None:
    with pytest.raises(UnreadableMessage) as raised:
        Envelope.decode(orjson.loads(envelope().encode()) | laid_over)
    assert not isinstance(raised.value, NewerEnvelope)


@pytest.mark.parametrize(
    "fields",
    [None, [], "x", {}, {"v": 2}, {"v": NEXT}, {"v": "1"}, {"v": 1}, {"v": 1, "request": 5}],
)
def test_what_is_no_envelope_is_refused_with_a_reason(fields: object) -> None:
    with pytest.raises(UnreadableMessage) as raised:
        Envelope.decode(fields)
    assert raised.value.reason


@pytest.mark.parametrize("field", ["tenant", "user", "model"])
def test_a_name_with_nul_is_refused_by_every_reader(field: str) -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        request_from({"prompt": "x", field: "a\x00b"})
    fields = orjson.loads(envelope().encode())
    fields["request"][field] = "a\x00b"
    with pytest.raises(UnreadableMessage, match="NUL"):
        Envelope.decode(fields)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object()])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest):
        envelope(metadata={"a": {"b": [value]}}).encode()


def test_ten_megabytes_are_the_limit() -> None:
    assert envelope(prompt="x" * (MAX_REQUEST_BYTES - 500)).encode()
    with pytest.raises(InvalidRequest, match="10 MB"):
        envelope(prompt="x" * MAX_REQUEST_BYTES).encode()


def test_ids_are_version_7_and_sort_by_their_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {uuid.UUID(i).version for i in ids} == {7}
    assert {uuid.UUID(i).variant for i in ids} == {uuid.RFC_4122}
    assert [i[:18] for i in ids] == sorted(i[:18] for i in ids), "also within a millisecond"
    assert abs((uuid.UUID(ids[0]).int >> 80) - now_ms()) < 5000


def test_a_result_comes_back_as_it_went_also_with_unknown_fields() -> None:
    error = ErrorReport("timeout", "no", True, [FailedAttempt("m", "timeout", "no", None, 5)])
    result = Result(id="1", status="failed", model="m", usage=Usage(1, 2, 3, 4, 5), error=error)
    fields = orjson.loads(orjson.dumps(result.as_json()))
    fields["usage"]["audio_tokens"] = 1
    fields["error"]["hint"] = "wait"
    fields["error"]["attempts"][0]["region"] = "eu"
    assert Result.from_json(fields | {"colour": "blue"}) == result


def test_a_result_shows_embeddings_or_content_and_retry_at_only_while_deferred() -> None:
    assert "embeddings" not in Result(id="1", status="succeeded", model="m", content="x").as_json()
    vectors = Result(id="1", status="succeeded", model="m", embeddings=[[1.0]]).as_json()
    assert "content" not in vectors
    assert "retry_at" not in vectors
    assert Result(id="1", status="deferred", model="m", retry_at="t").as_json()["retry_at"] == "t"


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(1_795_219_200_007) == "2026-11-21T00:00:00.007Z"
    assert rfc3339(None) is None


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({"input": "x"}, 1),
        ({"input": ["x", "y"]}, 1),
        ({"input": [1, 2]}, 2),
        ({"input": [[1, 2], [3]]}, 2),
        ({"messages": [{"role": "user", "content": "x"}]}, 1),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, 2),
    ],
)
def test_what_the_first_readers_would_refuse_travels_in_version_2(
    fields: dict[str, Any], version: int
) -> None:
    job = envelope().model_copy(update={"request": request_from(fields)})
    read = orjson.loads(job.encode())
    assert read["v"] == version
    assert Envelope.decode(read).request == job.request
