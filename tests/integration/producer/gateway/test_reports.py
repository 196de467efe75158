"""Reports over HTTP: each caller gets its own figures, and operators get all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from headgate.producer.callers import store
from headgate.producer.callers.caller import Scope
from headgate.producer.callers.store import NewKey
from headgate.shared.database.engine import open_engine
from tests.support.child import wait_until
from tests.support.gateway import Answered, House, ask, house
from tests.support.servers import Simulator, ValkeyServer, short_folder

ALL: tuple[Scope, ...] = ("chat", "jobs", "usage", "view")
KEYS = {
    "amber": NewKey("amber", "amber", scopes=("jobs", "usage")),
    "ann": NewKey("ann", "amber", user="ann", scopes=("jobs", "usage")),
    "birch": NewKey("birch", "birch", scopes=ALL, models=("gpt-4o-mini",)),
    "operator": NewKey("operator", "cedar", any_tenant=True, any_user=True, scopes=ALL),
    "chat": NewKey("chat", "amber", scopes=("chat",)),
}
CATALOG = """
[budget]
usd_per_month = "1000"
[tenants.amber]
rpm = 600
[tenants.amber.budget]
usd_per_day = "5"
[tenants.birch]
rpm = 300
[tenants.birch.budget]
usd_per_day = "7"
[users."amber/ann"]
rpm = 100
[users."amber/bob"]
rpm = 101
"""


@dataclass(frozen=True, slots=True)
class ReportsHouse:
    """A house whose gateway wants keys, and the secrets of some callers."""

    at: House
    secrets: dict[str, str]

    def ask(self, path: str, body: Any = None, *, by: str, **more: Any) -> Answered:
        """The answer to one of the callers."""
        bearer = f"Bearer {self.secrets[by]}"
        return ask(self.at.gateway, path, body, authorization=bearer, **more)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReportsHouse]:
    folder = tmp_path_factory.mktemp("reports")
    url, catalog = f"sqlite:///{folder / 'headgate.db'}", folder / "catalog.toml"
    catalog.write_text(CATALOG)
    with (
        short_folder() as short,
        ValkeyServer(short) as valkey,
        Simulator(folder / "simulator", ("--latency-ms", "5")) as simulator,
        house(valkey, url, simulator, folder, gateway_open="0", catalog=str(catalog)) as found,
    ):
        engine = open_engine(url)
        secrets = {name: store.create(engine, new)[1] for name, new in KEYS.items()}
        engine.dispose()
        made = ReportsHouse(found, secrets)
        for by, user in (("operator", "bob"), ("ann", None), ("birch", None)):
            headers = {"x_headgate_tenant": "amber", "x_headgate_user": user} if user else {}
            body = {"prompt": f"of {by}", "model": "gpt-4o-mini"}
            one = made.ask("/v1/jobs", body, by=by, **headers)
            made.ask(f"/v1/jobs/{one.json['id']}?wait_s=60", by=by)
        yield made


def test_usage_is_the_callers_own(at: ReportsHouse) -> None:
    def requests(by: str, asked: str = "") -> dict[tuple[str, str | None], int]:
        found = at.ask(f"/v1/usage?by=user{asked}", by=by)
        assert found.status == 200, found.body
        rows = {(row["tenant"], row["user"]): row["requests"] for row in found.json["rows"]}
        assert found.json["total"]["requests"] == sum(rows.values())
        return rows

    assert requests("operator") == {("amber", "ann"): 1, ("amber", "bob"): 1, ("birch", None): 1}
    assert requests("operator", "&tenant=amber&since=1d") == requests("amber")
    assert requests("amber") == {("amber", "ann"): 1, ("amber", "bob"): 1}
    assert requests("ann") == {("amber", "ann"): 1}
    assert requests("birch") == {("birch", None): 1}
    assert len(at.ask("/v1/usage?by=user&limit=1", by="amber").json["rows"]) == 1
    for wrong, status in (
        ("by=planet", 400), ("limit=0", 400), ("since=soon", 400), ("tenant=birch", 403),
        ("x=1", 400),
    ):  # fmt: skip
        assert at.ask(f"/v1/usage?{wrong}", by="amber").status == status, wrong


def test_limits_and_budgets_are_the_callers_own(at: ReportsHouse) -> None:
    def scopes(path: str, by: str) -> set[str]:
        found = at.ask(path, by=by)
        assert found.status == 200, found.body
        return {row["scope"] for row in found.json.get("buckets", found.json.get("budgets"))}

    limits = "/v1/limits"
    assert scopes(limits, "amber") == {"tenant/amber", "user/amber/ann", "user/amber/bob"}
    assert scopes(limits, "ann") == {"tenant/amber", "user/amber/ann"}
    assert scopes(limits, "birch") == {"tenant/birch"}
    assert scopes(limits, "operator") > {"tenant/amber", "tenant/birch"}
    assert scopes(f"{limits}?tenant=birch", "operator") == {"tenant/birch"}
    assert scopes("/v1/budgets", "amber") == {"tenant/amber"}
    assert scopes("/v1/budgets", "operator") == {"global", "tenant/amber", "tenant/birch"}
    own = at.ask(limits, by="amber").json
    assert (own["gates"], own["unsorted"]) == ([], {})
    assert at.ask(f"{limits}?tenant=birch", by="amber").status == 403
    unknown = at.ask(f"{limits}?pool=x", by="operator")
    assert (unknown.status, unknown.json["error"]["headgate"]["field"]) == (400, "pool")


def test_a_new_job_says_what_is_left_of_the_limits(at: ReportsHouse) -> None:
    def is_told() -> bool:  # an answer waits a tenth of a second for the figures
        body = {"prompt": "hello", "model": "gpt-4o-mini", "idempotency_key": "left"}
        answered = at.ask("/v1/jobs", body, by="amber")
        return answered.headers.get("x-ratelimit-limit-requests") == "600"

    wait_until(is_told, 30, "an answer with the limits")


def test_what_is_of_all_tenants_needs_a_key_for_all(at: ReportsHouse) -> None:
    found = at.ask("/v1/cache", by="operator")
    assert (found.status, found.json["entries"]) == (200, found.json["entries"])
    for by in ("amber", "birch"):
        assert at.ask("/v1/cache", by=by).status == 403
    for path in ("/v1/usage", "/v1/limits", "/v1/budgets", "/v1/cache"):
        refused = at.ask(path, by="chat")
        assert (refused.status, refused.json["error"]["headgate"]["kind"]) == (403, "KeyRefused")


def test_a_request_is_routed_and_checked_without_a_job(at: ReportsHouse) -> None:
    asked = {"prompt": "Write a sonnet about the sea.", "prefer": "quality"}
    routed = at.ask("/v1/route", asked, by="amber")
    assert routed.status == 200, routed.body
    assert {"model", "reasons", "runners_up", "excluded"} <= routed.json.keys()
    assert at.ask("/v1/route", asked, by="birch").status == 403  # it may not name "auto"
    checked = at.ask("/v1/check", {**asked, "model": "gpt-4o-mini"}, by="ann")
    assert (checked.status, checked.json["let_in"]) == (200, True)
    for path in ("/v1/route", "/v1/check"):
        refused = at.ask(path, {"promt": "x"}, by="amber")
        assert refused.json["error"]["headgate"]["field"] == "promt"
        assert at.ask(path, [], by="amber").status == 400
    assert at.ask("/v1/check", {"prompt": "x", "model": "gpt-4o"}, by="birch").status == 403


def test_health_says_more_to_those_who_may_see_it(at: ReportsHouse) -> None:
    short = {"status": "ready", "servers": "answer", "workers": 1}
    strange: dict[str, Any] = {"x_forwarded_for": "203.0.113.9"}

    def says_little(path: str, by: str = "", **headers: Any) -> None:
        # On a busy machine a worker may not say for a while that it lives.
        def said() -> Any:
            return (at.ask(path, by=by) if by else ask(at.at.gateway, path, **headers)).json

        wait_until(lambda: said() == short, 20, f"{path} to say {short}")

    for path in ("/health", "/v1/health"):
        says_little(path, **strange)
        says_little(path, by="amber")
        here = ask(at.at.gateway, path).json
        assert here.keys() == {*short, "report", "queues", "today"}
        assert here["today"]["requests"] >= 3
        assert (here["report"]["down"], here["queues"]) == ([], {})
        assert [one["model"] for one in here["report"]["models"]] == ["openai/gpt-4o-mini"]
        seen = at.ask(path, by="birch", **strange).json
        assert (seen["report"].keys(), seen["today"]["requests"]) == (here["report"].keys(), 1)
    says_little("/health", authorization="Bearer hg-wrong")
    says_little("/health/ready")
