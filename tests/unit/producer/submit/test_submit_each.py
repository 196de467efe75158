"""Requests of different callers that are submitted together: each stands for itself."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisAway

from headgate.producer.errors import IdempotencyConflict
from headgate.producer.submit import admission
from headgate.producer.submit import submit_each as each
from headgate.producer.submit.prepare import Submitter
from headgate.producer.submit.submit_each import submit_each
from headgate.shared.catalog import catalog
from headgate.shared.errors import HeadgateError
from headgate.shared.settings import Settings

AT: Any = None
REQUEST: dict[str, Any] = {"prompt": "hi", "model": "gpt-4o-mini"}


@pytest.fixture
def submitter() -> Submitter:
    return Submitter(Settings(), catalog.load(None))


def test_a_fault_with_one_request_is_none_of_the_others(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = submitter.prepare

    def prepare(given: Any, sample: int) -> Any:
        if given.prompt == "bad":
            raise KeyError("what the prompt says")
        return real(given, sample=sample)

    monkeypatch.setattr(submitter, "prepare", prepare)
    monkeypatch.setattr(each, "_enqueue", lambda _, entries: {e[0]["id"]: "j" for e in entries})
    requests: list[Any] = [REQUEST, REQUEST | {"prompt": "bad"}, REQUEST]
    found = submit_each(AT, submitter, requests)
    assert (found[0], found[2]) == ("j", "j")
    assert type(found[1]) is HeadgateError
    assert "KeyError" in caplog.text
    assert "what the prompt says" not in caplog.text


def test_all_samples_of_a_request_share_its_fault(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(each, "_enqueue", lambda _, entries: {e[0]["id"]: "j" for e in entries})
    embedding: Any = {"input": "a", "model": "text-embedding-3-small"}
    requests: list[Any] = [REQUEST, REQUEST | {"modle": "x"}, embedding]
    found = submit_each(AT, submitter, requests, samples=2)
    assert found[:2] == ["j", "j"]
    assert [getattr(one, "field", None) for one in found[2:]] == ["modle"] * 2 + ["samples"] * 2


@pytest.mark.parametrize("away", [RedisAway("gone"), OSError("gone")])
def test_a_server_that_is_away_is_away_for_all(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch, away: Exception
) -> None:
    def prepare(_: Any, sample: int) -> Any:
        raise away

    monkeypatch.setattr(submitter, "prepare", prepare)
    with pytest.raises(type(away)):
        submit_each(AT, submitter, [{"prompt": "hi"}])


def test_jobs_that_are_on_record_stay_so_if_redis_goes_away_after_them(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_back(*_: object) -> None:
        raise RedisAway("gone")

    def enqueue(_: object, entries: Any) -> dict[str, Any]:
        first, second = (row["id"] for row, *_ in entries)
        return {first: first, second: IdempotencyConflict("k", "another")}

    monkeypatch.setattr(admission, "refusals", lambda *_, **__: {})
    monkeypatch.setattr(admission, "give_back", give_back)
    monkeypatch.setattr(each, "_enqueue", enqueue)
    requests: list[Any] = [REQUEST, REQUEST | {"on_limit": "refuse"}]
    found = submit_each(AT, submitter, requests)
    assert isinstance(found[0], str)
    assert isinstance(found[1], IdempotencyConflict)
