"""Jobs over HTTP: submitted, waited for, listed, cancelled, retried and read as events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headgate import Result
from headgate.producer.callers import store
from headgate.producer.callers.store import NewKey
from headgate.shared.database.engine import open_engine
from tests.support.event_reader import EventReader
from tests.support.gateway import Answered, Gateway, House, ask, house
from tests.support.servers import Simulator, ValkeyServer, free_port, short_folder

JOBS = "/v1/jobs"
SLOW = "[[fault:slow:ms=120000]]"
ALONE: dict[str, Any] = {"cache": "off", "share": False, "fallback": False}
NOBODY = "0197c5a2-0000-7000-8000-000000000000"

KEYS = {
    "amber": NewKey("amber", "amber", any_user=True, scopes=("jobs",)),
    "ann": NewKey("ann", "amber", user="ann", scopes=("jobs",)),
    "birch": NewKey("birch", "birch", scopes=("jobs",), models=("gpt-4o-mini",)),
    "chat": NewKey("chat", "amber", scopes=("chat",)),
    "large": NewKey("large", "amber", scopes=("jobs",), models=("gpt-4o",)),
}


@dataclass(frozen=True, slots=True)
class JobsHouse:
    """A house whose gateway wants keys, and the secrets of some callers."""

    at: House
    secrets: dict[str, str]

    def ask(self, path: str, body: Any = None, *, by: str = "amber", **more: Any) -> Answered:
        """The answer to one of the callers."""
        bearer = f"Bearer {self.secrets[by]}"
        return ask(self.at.gateway, path, body, authorization=bearer, **more)

    def submit(self, prompt: str, *, by: str = "amber", **fields: Any) -> str:
        """A new job's id."""
        found = self.ask(JOBS, {"prompt": prompt, "model": "gpt-4o-mini", **fields}, by=by)
        assert found.status == 202, found.body
        return str(found.json["id"])

    def ended(self, job_id: str, *, by: str = "amber") -> dict[str, Any]:
        """The result, once the job has ended."""
        found = self.ask(f"{JOBS}/{job_id}?wait_s=60", by=by)
        assert found.status == 200, found.body
        return dict(found.json)

    def read(self, path: str, **headers: Any) -> EventReader:
        """The reader of a job's events."""
        bearer = f"Bearer {self.secrets['amber']}"
        return EventReader(self.at.gateway, path, None, authorization=bearer, **headers)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsHouse]:
    folder = tmp_path_factory.mktemp("jobs")
    url = f"sqlite:///{folder / 'headgate.db'}"
    with (
        short_folder() as short,
        ValkeyServer(short) as valkey,
        Simulator(folder / "simulator", ("--latency-ms", "20")) as simulator,
        house(valkey, url, simulator, folder, gateway_open="0") as found,
    ):
        engine = open_engine(url)
        secrets = {name: store.create(engine, new)[1] for name, new in KEYS.items()}
        engine.dispose()
        yield JobsHouse(found, secrets)


def facts(answered: Answered) -> dict[str, Any]:
    """The kind and the facts of an error."""
    return dict(answered.json["error"]["headgate"])


def test_a_job_is_submitted_and_its_result_read(at: JobsHouse) -> None:
    body = {"prompt": "hello", "model": "gpt-4o-mini", "metadata": {"run": 7}, "user": "u1"}
    first = at.ask(JOBS, body, idempotency_key="first-1")
    job_id = first.json["id"]
    assert (first.status, first.json) == (202, {"id": job_id, "status": "queued"})
    assert first.headers["location"] == f"{JOBS}/{job_id}"
    assert first.headers["x-request-id"].startswith("req_")
    found = at.ask(f"{JOBS}/{job_id}?wait_s=1e9")
    assert (found.status, found.headers["x-headgate-job-id"]) == (200, job_id)
    assert found.headers["x-headgate-model-used"] == "gpt-4o-mini"
    result = Result.from_json(found.json)
    assert (result.status, result.metadata) == ("succeeded", {"run": 7})
    assert result.content
    assert at.ask(f"{JOBS}/{job_id}/status").json == {"id": job_id, "status": "succeeded"}
    assert at.ask(JOBS, body, idempotency_key="first-1").json["id"] == job_id
    other = at.ask(JOBS, {**body, "prompt": "bye"}, idempotency_key="first-1")
    assert other.status == 409
    assert facts(other) == {
        "kind": "IdempotencyConflict", "key": "first-1", "job_id": job_id, "on_record": [],
    }  # fmt: skip


def test_a_job_that_has_not_ended_says_what_it_waits_for(at: JobsHouse) -> None:
    job_id = at.submit(SLOW, **ALONE)
    began = time.monotonic()
    found = at.ask(f"{JOBS}/{job_id}?wait_s=0.2")
    assert time.monotonic() - began >= 0.2
    assert (found.status, found.headers["retry-after"]) == (202, "1")
    assert found.json["status"] in ("queued", "running")
    assert "waiting_for" in found.json
    ended = at.ask(f"{JOBS}/{job_id}?timeout_s=60", method="DELETE")
    assert (ended.status, ended.json["status"]) == (200, "cancelled")
    assert at.ask(f"{JOBS}/{job_id}", method="DELETE").json["status"] == "cancelled"


@pytest.mark.parametrize("wrong", ["nan", "-1", "abc", "", "1&wait_s=2", "1&wiat_s=2"])
def test_a_time_that_is_none_is_refused_by_its_name(at: JobsHouse, wrong: str) -> None:
    found = at.ask(f"{JOBS}/{NOBODY}?wait_s={wrong}")
    assert found.status == 400, found.body
    assert facts(found)["field"] in ("wait_s", "wiat_s")


def test_half_of_many_jobs_is_wrong_and_the_others_run(at: JobsHouse) -> None:
    jobs: list[Any] = [
        "only a text", {"prompt": "one"}, {"promt": "x"}, 7, {"prompt": "x", "key_id": "hgk_1"},
        {"prompt": "x", "params": {"temperature": "hot"}}, {"prompt": "x", "tenant": "birch"},
        {"input": "a", "model": "text-embedding-3-small"},
    ]  # fmt: skip
    found = at.ask(JOBS, {"jobs": jobs}, idempotency_key="many-1")
    assert found.status == 202, found.body
    assert (found.json["queued"], found.json["refused"]) == (3, 5)
    ids = [one.get("id") for one in found.json["jobs"]]
    wrong = [one["error"] for one in found.json["jobs"] if "error" in one]
    assert [one["param"] for one in wrong] == ["promt", "request", "key_id", "params.temperature",
                                               None]  # fmt: skip
    assert wrong[-1]["headgate"]["kind"] == "KeyRefused"
    assert [bool(one) for one in ids] == [True, True, False, False, False, False, False, True]
    good = [one for one in ids if one]
    again = at.ask(JOBS, {"jobs": jobs}, idempotency_key="many-1")
    assert [one.get("id") for one in again.json["jobs"]] == ids
    left = set(good)
    while left:
        waited = at.ask(f"{JOBS}/wait", {"ids": sorted(left), "wait_s": 60})
        assert waited.json["results"], "it returned before a job had ended"
        assert {one["status"] for one in waited.json["results"].values()} == {"succeeded"}
        left -= waited.json["results"].keys()


def test_all_or_none_names_the_job_at_fault_and_queues_nothing(at: JobsHouse) -> None:
    def count() -> int:
        return len(at.ask(f"{JOBS}?metadata.of=none").json["jobs"])

    good = {"prompt": "x", "metadata": {"of": "none"}}
    for bad, field in (
        ({"promt": "x"}, "jobs[1].promt"), (7, "jobs[1]"),
        ({**good, "model": "x"}, "jobs[1].model"),
        ({**good, "pinned": {}}, "jobs[1].pinned"),
    ):  # fmt: skip
        found = at.ask(JOBS, {"jobs": [good, bad], "all_or_none": True})
        assert found.status in (400, 404), found.body
        assert (facts(found)["kind"], facts(found)["field"]) == ("InvalidRequest", field)
    found = at.ask(JOBS, {"jobs": [good, {"tenant": "birch"}], "all_or_none": True})
    assert (found.status, facts(found)["kind"]) == (403, "KeyRefused")
    assert count() == 0
    found = at.ask(JOBS, {"jobs": [good, good], "all_or_none": True, "samples": 2})
    assert found.status == 202, found.body
    assert len({one["id"] for one in found.json["jobs"]}) == count() == 4


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"jobs": []}, "jobs"),
        ({"jobs": ["x"] * 10_001}, "jobs"),
        ({"jobs": ["x"] * 101, "samples": 100}, "jobs"),
        ({"jobs": {"prompt": "x"}}, "jobs"),
        ({"jobs": ["x"], "samples": True}, "samples"),
        ({"jobs": ["x"], "samples": 0}, "samples"),
        ({"jobs": ["x"], "all_or_none": "yes"}, "all_or_none"),
        ({"jobs": ["x"], "model": "gpt-4o"}, "model"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "samples": 2}, "samples"),
        ({"prompt": "x", "stream": "yes"}, "stream"),
        ({"prompt": "x", "user": 5}, "user"),
        ({"prompt": "x", "key_id": None}, "key_id"),
        ({}, "prompt"),
    ],
)
def test_a_body_that_cannot_be_is_refused_by_the_field(
    at: JobsHouse, body: dict[str, Any], field: str
) -> None:
    found = at.ask(JOBS, body)
    assert found.status == 400, found.body
    assert (facts(found)["kind"], facts(found)["field"]) == ("InvalidRequest", field)
    assert found.json["error"]["param"] == field


@pytest.mark.parametrize("path", [f"{JOBS}/wait", f"{JOBS}/cancel"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ids"),
        ({"ids": "x"}, "ids"),
        ({"ids": []}, "ids"),
        ({"ids": ["x"] * 1001}, "ids"),
        ({"ids": ["x", 5]}, "ids[1]"),
        ({"ids": ["x"], "wiat": 5}, "wiat"),
        ({"ids": ["x"], "wait_s": True, "timeout_s": True}, None),
    ],
)
def test_ids_that_cannot_be_are_refused(
    at: JobsHouse, path: str, body: dict[str, Any], field: str | None
) -> None:
    found = at.ask(path, body)
    assert found.status == 400, found.body
    assert facts(found)["field"] in (field, "wait_s", "timeout_s")


def test_one_call_waits_for_many_jobs_and_ends_with_the_first(at: JobsHouse) -> None:
    slow, quick = at.submit(SLOW, **ALONE), at.submit("quick")
    found = at.ask(f"{JOBS}/wait", {"ids": [slow, quick], "wait_s": 60})
    assert list(found.json["results"]) == [quick]
    assert found.json["results"][quick]["status"] == "succeeded"
    assert at.ask(f"{JOBS}/wait", {"ids": [slow], "wait_s": 0.1}).json == {"results": {}}
    odd = at.ask(f"{JOBS}/wait", {"ids": [slow, NOBODY, "a\0b"], "wait_s": 60}).json["results"]
    assert {one["error"]["headgate"]["kind"] for one in odd.values()} == {"UnknownJob"}
    ended = at.ask(f"{JOBS}/cancel", {"ids": [quick, NOBODY, slow, quick], "timeout_s": 60})
    first, unknown, second, again = ended.json["results"]
    assert (first["status"], second["status"], again) == ("succeeded", "cancelled", first)
    assert (list(unknown), unknown["error"]["code"]) == (["error"], "not_found")


def test_a_failed_job_is_queued_again_under_its_id(at: JobsHouse) -> None:
    job_id = at.submit("[[fault:times=1:400]] no", **ALONE)
    assert at.ended(job_id)["status"] == "failed"
    refused = at.ask(f"{JOBS}/{job_id}/retry", method="POST", by="large")
    assert (refused.status, facts(refused)["code"]) == (403, "model")
    again = at.ask(f"{JOBS}/{job_id}/retry", method="POST")
    assert (again.status, again.json) == (202, {"id": job_id, "status": "queued"})
    assert at.ended(job_id)["id"] == job_id
    good = at.submit("fine")
    at.ended(good)
    refused = at.ask(f"{JOBS}/{good}/retry", method="POST")
    assert (refused.status, facts(refused)["field"]) == (400, "job_id")


def test_events_go_on_where_a_reader_left_off(at: JobsHouse) -> None:
    job_id = at.submit("Tell me of the sea", stream=True, params={"max_tokens": 60}, **ALONE)
    with at.read(f"{JOBS}/{job_id}/events?pulse_s=1") as reader:
        assert reader.headers["content-type"].startswith("text/event-stream")
        first = reader.next()
    assert first is not None
    assert first.name == "delta"
    for place in (first.id, str(len(first.json["text"]))):
        with at.read(f"{JOBS}/{job_id}/events", last_event_id=place) as reader:
            rest = list(reader)
        assert [one.name for one in rest] == ["delta"] * (len(rest) - 1) + ["end"]
        result = rest.pop().json
        assert first.json["text"] + "".join(one.json["text"] for one in rest) == result["content"]
    assert result == at.ended(job_id)
    with at.read(f"{JOBS}/{job_id}/events?after=3-00000000") as reader:
        [broken] = reader
    assert (broken.name, broken.json["error"]["headgate"]["kind"]) == ("error", "StreamBroken")


def test_events_of_jobs_without_text_are_their_end(at: JobsHouse) -> None:
    failed = at.submit("[[fault:400]] no", stream=True, **ALONE)
    vectors = at.ask(JOBS, {"model": "text-embedding-3-small", "input": "a"}).json["id"]
    for job_id, status in ((failed, "failed"), (vectors, "succeeded"), (vectors, "succeeded")):
        with at.read(f"{JOBS}/{job_id}/events") as reader:
            [end] = reader
        assert (end.name, end.json["status"], end.json["id"]) == ("end", status, job_id)
    assert at.ask(f"{JOBS}/{failed}/events?after=x").status == 400
    assert at.ask(f"{JOBS}/{NOBODY}/events").status == 404


def test_jobs_are_listed_page_by_page(at: JobsHouse) -> None:
    ids = [at.submit(f"page {n}", metadata={"of": "pages"}, user=f"u{n % 2}") for n in range(5)]
    asked, cursor, found = f"{JOBS}?metadata.of=pages&limit=2", None, []
    while True:
        page = at.ask(asked if cursor is None else f"{asked}&cursor={cursor}").json
        found += [one["id"] for one in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids[::-1]
    of_user = at.ask(f"{JOBS}?metadata.of=pages&user=u1").json["jobs"]
    assert [one["id"] for one in of_user] == [ids[3], ids[1]]
    cursor = at.ask(asked).json["next_cursor"]
    for wrong in (
        f"cursor={cursor}&metadata.of=pages", "cursor=x", "tenant=amber", "limit=0", "limit=1001",
        "status=done", "metadata.a=%00", f"before={ids[0]}", "since=soon",
    ):  # fmt: skip
        refused = at.ask(f"{JOBS}?{wrong}", by="birch")
        assert refused.status in (400, 403, 404), (wrong, refused.body)
        assert "amber" not in refused.body.decode() or wrong == "tenant=amber"
    assert at.ask(f"{JOBS}?before={ids[1]}&metadata.of=pages").json["jobs"][0]["id"] == ids[0]
    assert at.ask(f"{JOBS}?metadata.of=pages", by="birch").json["jobs"] == []


def test_a_key_sees_the_jobs_of_its_tenant_or_its_user(at: JobsHouse) -> None:
    hers, others = at.submit("hers", by="ann"), at.submit("others", user="bob")
    assert {one["user"] for one in at.ask(JOBS, by="ann").json["jobs"]} == {"ann"}
    assert at.ask(f"{JOBS}/{hers}", by="ann").status in (200, 202)
    assert at.ask(f"{JOBS}/{hers}").status in (200, 202)
    for caller, job_id in (("ann", others), ("birch", hers), ("birch", NOBODY)):
        for method, path in (
            ("GET", ""), ("DELETE", ""), ("GET", "/status"), ("GET", "/events"), ("POST", "/retry"),
        ):  # fmt: skip
            found = at.ask(f"{JOBS}/{job_id}{path}", by=caller, method=method)
            assert (found.status, facts(found)) == (404, {"kind": "UnknownJob", "job_id": job_id})
        for act in ("wait", "cancel"):
            found = at.ask(f"{JOBS}/{act}", {"ids": [job_id]}, by=caller)
            assert "UnknownJob" in json.dumps(found.json["results"])
            assert '"status"' not in found.body.decode()
    assert at.ended(others)["status"] == "succeeded"


def test_a_key_does_what_its_scopes_and_models_allow(at: JobsHouse) -> None:
    for path, body in ((JOBS, {"prompt": "x"}), (JOBS, None), (f"{JOBS}/wait", {"ids": ["x"]})):
        found = at.ask(path, body, by="chat")
        assert (found.status, facts(found)["kind"]) == (403, "KeyRefused")
    refused = at.ask(JOBS, {"prompt": "x", "model": "gpt-4o"}, by="birch")
    assert refused.status == 403
    each = at.ask(JOBS, {"jobs": [{"prompt": "x", "fallback": ["gpt-4o"]}, "x"]}, by="birch").json
    assert each["jobs"][0]["error"]["headgate"]["http_status"] == 403
    assert at.ended(each["jobs"][1]["id"], by="birch")["status"] == "succeeded"


@pytest.mark.parametrize("away", ["redis", "database"])
def test_a_gateway_without_its_servers_says_so(tmp_path: Path, away: str) -> None:
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": f"redis://127.0.0.1:{free_port()}",
        "HEADGATE_DATABASE_URL": f"sqlite:///{tmp_path / 'headgate.db'}",
    }
    if away == "database":
        env["HEADGATE_DATABASE_URL"] = f"postgresql://u:pass@127.0.0.1:{free_port()}/x"
    with Gateway(env, tmp_path) as gateway:
        for path, body in (
            (JOBS, {"prompt": "x"}), (JOBS, {"jobs": ["x"]}), ("/v1/check", {"prompt": "x"}),
            ("/v1/limits", None),
        ):  # fmt: skip
            found = ask(gateway, path, body)
            assert (found.status, facts(found)["kind"]) == (503, "Unreachable"), found.body
            assert found.headers["retry-after"] == "5"
            assert "127.0.0.1" not in found.body.decode()
        assert ask(gateway, "/health").json == {"status": "not ready", "servers": "do not answer"}


def test_other_methods_are_refused(at: JobsHouse) -> None:
    for path in (JOBS, f"{JOBS}/{NOBODY}"):
        assert at.ask(path, method="PUT").status == 405
