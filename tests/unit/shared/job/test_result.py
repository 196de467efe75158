"""A result as plain values, for logs, caches and web frameworks."""

from __future__ import annotations

import json

from headgate import ErrorReport, FailedAttempt, Result, Usage, WaitingFor
from headgate.shared.job.result import Result as Stored


def test_a_dump_is_json_with_all_fields_and_a_copy() -> None:
    result = Result(
        id="1", status="succeeded", model="auto", content="Hello", usage=Usage(input_tokens=3),
        metadata={"order": [17]}, message={"choices": [{"logprobs": None}]},
    )  # fmt: skip
    dumped = result.model_dump()
    assert Stored.from_json(json.loads(json.dumps(dumped))) == result
    assert dumped == result.as_json()
    dumped["metadata"]["order"].append(18)
    dumped["usage"]["input_tokens"] = 4
    assert (result.metadata, result.usage) == ({"order": [17]}, Usage(input_tokens=3))


def test_a_dump_of_a_failed_and_of_a_waiting_job_and_of_embeddings() -> None:
    attempts = [FailedAttempt("m", "timeout", "no answer", None, 5)]
    error = ErrorReport("timeout", "no answer in time", True, attempts)
    failed = Result(id="1", status="failed", model="m", error=error).model_dump()
    assert failed["error"]["attempts"][0]["code"] == "timeout"
    waits = WaitingFor("limit", "pool/openai/gpt-4o")
    deferred = Result(id="1", status="deferred", model="m", waiting_for=waits).model_dump()
    assert deferred["waiting_for"]["kind"] == "limit"
    embedded = Result(id="1", status="succeeded", model="m", embeddings=[[0.5, 1e-9]]).model_dump()
    assert embedded["embeddings"] == [[0.5, 1e-9]]
    assert "content" not in embedded
    large = Result(id="1", status="queued", model="m", metadata={"n": 2**80}).model_dump()
    assert large["metadata"] == {"n": 2**80}
