"""One caller of the gateway never sees another tenant's job, answer, stream, usage or error.

Two tenants, each with a key of its own, and a third caller whose key may name either, ask for the
same things in any order: equal prompts, equal idempotency keys, retries and streams.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from headgate.producer.gateway.routes import routes
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import jobs
from tests.support.command import headgate
from tests.support.gateway import Answered, House, ask, house
from tests.support.servers import Simulator, ValkeyServer

TENANTS = ("amber", "birch")
CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
MODERATIONS = "/v1/moderations"
COUNT, MODEL = "/v1/messages/count_tokens", "/v1/models/{name:path}"
JOBS, RESPONSES = "/v1/jobs", "/v1/responses"
SAME_FOR_ALL = {"/v1/models", "/health", "/v1/health", "/health/live", "/health/ready",
                "/openapi.json", "/docs", "/v1/budgets"}  # fmt: skip
"""Addresses that take no id and name no tenant."""

SCOPES = ("chat", "embeddings", "jobs", "usage", "view")

_OF_THEIR_OWN = ("embeddings", "messages", "moderations")
"""Calls of which none has the cached answer of another kind."""

_rounds = count()


What = Literal[
    "chat", "stream", "messages", "embeddings", "moderations", "job", "list", "responses"
]


@dataclass(frozen=True, slots=True)
class Step:
    """One call: as a tenant, with its own key or with the key that may name any tenant."""

    tenant: str
    with_any: bool
    what: What
    prompt: int
    key: int | None
    retry: int | None
    after: int


STEPS = st.builds(
    Step,
    tenant=st.sampled_from(TENANTS),
    with_any=st.booleans(),
    what=st.sampled_from(get_args(What)),
    prompt=st.integers(1, 2),
    key=st.none() | st.just(1),
    retry=st.none() | st.just(1),
    after=st.integers(0, 1),
)


@dataclass
class TenantCallers:
    """The house, the keys of its callers, and which jobs each tenant has seen."""

    at: House
    keys: dict[str, str]
    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    asked: dict[str, set[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(set))

    def call(self, path: str, tenant: str, body: Any = None, **headers: Any) -> Answered:
        """The answer to a call with the key of this tenant, or of `any`."""
        bearer = f"Bearer {self.keys[tenant]}"
        return ask(self.at.gateway, path, body, authorization=bearer, **headers)

    def others(self, tenant: str) -> list[str]:
        """What an answer to this tenant must not hold: the other's name, and its jobs."""
        [other] = set(TENANTS) - {tenant}
        return [other, *self.seen[other]]

    def require_unknown(self, tenant: str) -> None:
        """All jobs of the other tenant are unknown to this one, whatever it asks."""
        [other] = set(TENANTS) - {tenant}
        ids = sorted(self.seen[other])[-5:]
        if ids:
            for act in ("wait", "cancel"):
                found = self.call(f"{JOBS}/{act}", tenant, {"ids": ids}).json["results"]
                ends = found.values() if isinstance(found, dict) else found
                assert all(list(end) == ["error"] for end in ends), (tenant, act)

    def take(self, step: Step, run: int) -> None:
        """Make the call of this step; what it answers is the tenant's own."""
        path, body = _body(step, run)
        headers: dict[str, Any] = {}
        if step.with_any:
            headers["x_headgate_tenant"] = step.tenant
        if step.key is not None:
            headers["idempotency_key"] = f"{run}-{step.key}"
        if step.retry is not None:
            headers["x_stainless_retry_count"] = str(step.retry)
        if step.what == "stream" and step.after:
            headers["last_event_id"] = str(step.after)
        answered = self.call(path, "any" if step.with_any else step.tenant, body, **headers)
        text = json.dumps(answered.headers) + answered.body.decode()
        for word in self.others(step.tenant):
            assert word not in text, (step, word)
        if (job_id := answered.headers.get("x-headgate-job-id")) is not None:
            self.seen[step.tenant].add(job_id)
        if step.what == "job" and answered.status == 202:
            answered = self.call(f"{JOBS}/{job_id}?wait_s=60", step.tenant)
            assert answered.json["id"] == job_id, answered.body
        if answered.status == 200 and step.what != "list":
            same = step.what if step.what in _OF_THEIR_OWN else "chat", step.prompt, run
            is_cached = answered.headers.get("x-headgate-cached", "none") != "none"
            if is_cached or (step.what == "job" and answered.json["cached"]):
                assert same in self.asked[step.tenant], step
            self.asked[step.tenant].add(same)


def _body(step: Step, run: int) -> tuple[str, dict[str, Any] | None]:
    text = f"run {run}, question {step.prompt}"
    if step.what == "embeddings":
        return EMBEDDINGS, {"model": "text-embedding-3-small", "input": text}
    if step.what == "moderations":
        return MODERATIONS, {"input": text}
    if step.what == "list":
        return f"{JOBS}?limit=1000", None
    if step.what == "responses":
        return RESPONSES, {"model": "gpt-4o-mini", "max_output_tokens": 20, "input": text}
    messages = [{"role": "user", "content": text}]
    if step.what == "job":
        params = {"max_tokens": 20}
        return JOBS, {"model": "gpt-4o-mini", "messages": messages, "params": params}
    if step.what == "messages":
        body = {"model": "claude-haiku-4-5", "max_tokens": 20, "messages": messages}
        return MESSAGES, body
    body = {"model": "gpt-4o-mini", "max_tokens": 20, "messages": messages}
    return CHAT, {**body, "stream": True} if step.what == "stream" else body


@pytest.fixture
def callers(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[TenantCallers]:
    """A gateway with a key of each tenant, and one that may name any."""
    simulator = simulator_factory("--latency-ms", "10")
    with house(valkey, sqlite_url, simulator, tmp_path, gateway_open="0") as at:
        options = {
            "amber": ("--tenant", "amber"),
            "birch": ("--tenant", "birch"),
            "any": ("--any-tenant", "--any-user", "--tenant", "cedar"),
        }
        scopes = [word for one in SCOPES for word in ("--scope", one)]
        keys = {}
        for name, given_options in options.items():
            ended = headgate(("keys", "create", name, *given_options, *scopes), at.env)
            assert ended.code == 0, ended
            keys[name] = ended.out.strip()
        yield TenantCallers(at, keys)


@pytest.mark.slow
@settings(
    max_examples=12, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(steps=st.lists(STEPS, min_size=8, max_size=20))
def test_tenants_that_ask_for_the_same_get_their_own(
    callers: TenantCallers, steps: list[Step]
) -> None:
    run = next(_rounds)
    for step in steps:
        callers.take(step, run)
    for tenant in TENANTS:
        callers.require_unknown(tenant)
    owners = _owners(callers.at)
    for tenant in TENANTS:
        assert {owners[job_id] for job_id in callers.seen[tenant]} <= {tenant}


def _owners(at: House) -> dict[str, str]:
    engine = open_engine(at.env["HEADGATE_DATABASE_URL"])
    with reading(engine) as connection:
        found = {row.id: row.tenant for row in connection.execute(select(jobs.c.id, jobs.c.tenant))}
    engine.dispose()
    return found


@pytest.mark.slow
def test_a_key_for_any_tenant_gets_the_job_of_the_tenant_that_it_names(
    callers: TenantCallers,
) -> None:
    for retry in (None, 1):
        for n, what in enumerate(("chat", "stream", "messages", "embeddings")):
            for tenant in (*TENANTS, *TENANTS):
                callers.take(Step(tenant, True, what, 1, n, retry, 0), -1)  # type: ignore[arg-type]
    assert len(callers.seen["amber"]) == len(callers.seen["birch"]) == 4


def test_no_address_shows_what_is_anothers(callers: TenantCallers) -> None:
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "the secret of birch"}],
    }
    first = callers.call(CHAT, "birch", body, x_headgate_metadata='{"note": "of birch"}')
    assert first.status == 200, first.body
    job_id = first.headers["x-headgate-job-id"]
    callers.seen["birch"].add(job_id)
    named = {**_calls_that_name(callers, job_id, body), **_calls_for_response(callers)}
    for route in routes():
        calls: Sequence[Callable[[], Answered]]
        if route.path in SAME_FOR_ALL:
            calls = [partial(callers.call, route.path, "amber")]
        else:
            assert route.path in named, f"{route.path}: say here how it could name another's"
            calls = named[route.path]
        for call in calls:
            found = call()
            text = found.body.decode()
            assert (
                found.status in (400, 403, 404)
                or "UnknownJob" in text
                or (route.path in (COUNT, *SAME_FOR_ALL))
            ), (route.path, found)
            assert "secret of birch" not in text
            assert '"status"' not in text or route.path in SAME_FOR_ALL
            if "{" not in route.path and "UnknownJob" not in text:  # which repeat what they got
                assert job_id not in text, route.path
            assert found.headers.get("x-headgate-job-id") != job_id


def _calls_for_response(callers: TenantCallers) -> dict[str, list[Callable[[], Answered]]]:
    """By address, calls of amber that name a response of birch."""
    asked = {"model": "gpt-4o-mini", "input": "the secret of birch"}
    made = callers.call(RESPONSES, "birch", asked)
    assert made.status == 200, made.body
    follows = {"model": "gpt-4o-mini", "input": "x", "previous_response_id": made.json["id"]}
    one, any_one = f"{RESPONSES}/{made.json['id']}", f"{RESPONSES}/{{id}}"

    def call(path: str, given: Any = None, **more: Any) -> Callable[[], Answered]:
        return lambda: callers.call(path, "amber", given, **more)

    count = f"{RESPONSES}/input_tokens"
    return {
        RESPONSES: [call(RESPONSES, follows)],
        count: [call(count, follows)],
        f"{RESPONSES}/compact": [call(f"{RESPONSES}/compact", follows)],
        any_one: [call(one), call(f"{one}?stream=true&starting_after=0"),
                  call(one, method="DELETE")],
        f"{any_one}/cancel": [call(f"{one}/cancel", method="POST")],
        f"{any_one}/input_items": [call(f"{one}/input_items")],
    }  # fmt: skip


def _calls_that_name(
    callers: TenantCallers, job_id: str, body: dict[str, Any]
) -> dict[str, list[Callable[[], Answered]]]:
    """By address, calls of amber that name the other tenant, or its job."""

    def call(path: str, given: Any = None, **more: Any) -> Callable[[], Answered]:
        return lambda: callers.call(path, "amber", given, **more)

    other, ids = {"x_headgate_tenant": "birch"}, {"ids": [job_id]}
    embedding = {"model": "text-embedding-3-small", "input": "x", "headgate": {"tenant": "birch"}}
    cursor = callers.call(f"{JOBS}?limit=1", "birch").json["next_cursor"]
    one = f"{JOBS}/{job_id}"
    return {
        CHAT: [call(CHAT, body, **other)],
        MESSAGES: [call(MESSAGES, body, **other)],
        EMBEDDINGS: [call(EMBEDDINGS, embedding)],
        MODERATIONS: [call(MODERATIONS, {"input": "x"}, **other)],
        COUNT: [call(COUNT, body, **other)],
        MODEL: [call(f"/v1/models/{job_id}")],
        JOBS: [call(JOBS, {"prompt": "x", "tenant": "birch"}), call(JOBS, {"prompt": "x"}, **other),
               call(f"{JOBS}?tenant=birch"), call(f"{JOBS}?cursor={cursor}"),
               call(f"{JOBS}?before={job_id}")],
        "/v1/route": [call("/v1/route", {"prompt": "x", "tenant": "birch"})],
        "/v1/check": [call("/v1/check", {"prompt": "x"}, **other)],
        "/v1/usage": [call("/v1/usage?tenant=birch"), call("/v1/usage", **other)],
        "/v1/limits": [call("/v1/limits?tenant=birch"), call("/v1/limits", **other)],
        "/v1/cache": [call("/v1/cache"), call("/v1/cache", **other)],
        f"{JOBS}/wait": [call(f"{JOBS}/wait", ids)],
        f"{JOBS}/cancel": [call(f"{JOBS}/cancel", ids)],
        f"{JOBS}/{{id}}": [call(one), call(one, method="DELETE")],
        f"{JOBS}/{{id}}/status": [call(f"{one}/status")],
        f"{JOBS}/{{id}}/retry": [call(f"{one}/retry", method="POST")],
        f"{JOBS}/{{id}}/events": [call(f"{one}/events")],
    }  # fmt: skip
