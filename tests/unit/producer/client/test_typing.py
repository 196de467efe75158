"""The types of the clients: a type checker and an editor know each field, and see a wrong one."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import headgate
from headgate.producer.client.arguments import UsageKey
from headgate.producer.submit.fields import CacheFields, PinFields, RequestFields
from headgate.producer.usage.report import BY
from headgate.shared.job.request import CacheWish, Pin, Request
from tests import ROOT

GOOD = '''
import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pydantic import BaseModel
from headgate import (
    AdmissionCheck, AsyncClient, Client, ErrorReport, JobFailed, Listed, Request, RequestFields,
    Result, Route, Settings, Status, SubmitProgress, UsageReport,
)

class Place(BaseModel):
    """A place."""

    name: str

def show(report: SubmitProgress) -> None:
    """Print how far it is."""
    print(report.submitted, report.ended, report.ids)

def blocking(prompts: list[str]) -> list[Result]:
    """Submit to the servers that the settings name; return all results."""
    with Client(Settings(redis_url="redis://localhost")) as client:
        job = client.submit("Hello", model="gpt-4o-mini", priority="interactive", deadline_s=60)
        batch: list[RequestFields] = [{"prompt": p, "priority": "bulk"} for p in prompts]
        ids = client.submit_many([*batch, "Hello", Request(prompt="Hello")])
        ids += client.submit_many({"prompt": p, "cache": {"mode": "off"}} for p in prompts)
        ids += client.submit_many((p for p in prompts), max_in_flight=5, progress=show)
        answers: list[Result] = client.map(prompts, model="auto", response_format=Place)
        answers += client.map([{"prompt": "x"}], return_errors=True, timeout_s=5, tenant="acme")
        answers += client.results(ids) + client.results(iter(ids), wait=True)
        print([result.id for result in client.as_completed(ids, timeout_s=5)], answers)
        print(client.submit("x", response_format=Place).result().parsed.name)
        print(client.result("id", response_format=Place).parsed)
        route: Route = client.route("Hello", prefer="speed", max_usd_per_million=2)
        listed: list[Listed] = client.jobs(status="failed", since=timedelta(hours=1), limit=5)
        report: UsageReport = client.usage(["tenant", "day"], since=timedelta(days=7), tenant="a")
        client.submit("x", cache="off").result(timeout=30)
        listed += client.jobs(since="1h")
        checked: AdmissionCheck = client.check("Hello", tenant="acme")
        print(checked.let_in, client.health().down, client.limits(pool="openai/gpt-4o-mini").gates)
        print([row.spent_usd for row in client.budgets()], client.cache_stats().saved_usd)
        print(client.retry(job.id).id, job.wait().model_dump()["id"], job.retry().id)
        pieces = [piece.after for piece in job.stream(after=5)]
        print(pieces, list(client.stream(job.id, after=pieces[-1])))
        print(route.model, [one.status for one in listed], report.total.cost_usd)
        try:
            print(job.result(timeout_s=30).content)
        except JobFailed as failed:
            print(failed.code, failed.status)
        return [client.result(job_id, wait=True) for job_id in ids]

async def lines() -> AsyncIterator[str]:
    """Yield prompts."""
    yield "Hello"

async def tell(report: SubmitProgress) -> None:
    """Send how far it is."""
    print(report.submitted)

async def waiting() -> None:
    async with AsyncClient("redis://localhost") as client:
        job = await client.submit(messages=[{"role": "user", "content": "Hi"}], stream=True)
        print("".join([text async for text in client.stream(job.id, pulse_s=5)]))
        print([piece.after async for piece in job.stream(after="5-00000000")])
        ids = await client.submit_many(lines(), max_in_flight=5, progress=tell)
        print([one.id async for one in client.as_completed(ids)], await client.results(ids))
        print(len(await client.map(lines(), response_format=Place, user="u1")))
        print((await client.submit("x", response_format=Place)).response_format)
        print((await job.wait(timeout_s=5)).status, (await job.retry()).id)
        result, status = await job.result(timeout=3), await job.status()
        error: ErrorReport | None = result.error
        print((await client.check("x")).max_usd, (await client.health()).workers)
        print((await client.limits()).pools, await client.budgets(), await client.cache_stats())
        print((await client.retry(job.id)).id)
        ended: Status = status
        print(ended, [one.http_status for one in error.attempts] if error else result.tool_calls)

blocking(["a", "b"])
asyncio.run(waiting())
'''

BAD = """
from headgate import AsyncClient, Client, RequestFields

def wrong(client: Client) -> None:
    client.submit("x", modell=1)  # wrong
    client.submit("x", priority="high")  # wrong
    client.submit("x", deadline_s="60")  # wrong
    client.submit(5)  # wrong
    client.submit("x", params={"max_tokens": 5}, tenant=None)  # wrong
    client.submit("x", cache={"mode": "semantic"})  # wrong
    client.submit("x", on_limit="fail")  # wrong
    client.submit_many([{"prompt": "x", "modell": 1}])  # wrong
    client.submit_many([{"prompt": "x", "priority": "high"}])  # wrong
    client.submit_many([5])  # wrong
    client.route("x", prefer="fun")  # wrong
    client.jobs(status="done")  # wrong
    client.jobs(since=3600)  # wrong
    client.submit("x").result(timeout="5")  # wrong
    client.usage(["tenats"])  # wrong
    client.usage("tenant", modell="x")  # wrong
    client.stream("id", timeout="5")  # wrong
    client.result(client.submit("x"))  # wrong
    client.stream("id", after=b"5")  # wrong
    client.map("x", modell="x")  # wrong
    client.map(["x"], priority="high")  # wrong
    client.map(["x"], timeout_s="5")  # wrong
    client.submit("x", response_format="json")  # wrong
    client.submit_many(["x"], progress=print, max_in_flight="5")  # wrong
    client.results([5])  # wrong
    client.as_completed(5)  # wrong
    Client(b"redis://localhost")  # wrong
    client.submit("x", cache="of")  # wrong
    fields: RequestFields = {"modell": "x"}  # wrong
    client.submit("x").result(timeout_s="5")  # wrong
    client.result("id").status == "done"  # wrong
    client.submit(**fields)

async def also_wrong(client: AsyncClient) -> None:
    await client.submit("x", modell=1)  # wrong
    await client.submit("x", priority="high")  # wrong
    await client.jobs(status="done")  # wrong
    await client.usage(["tenats"])  # wrong
    AsyncClient(b"redis://localhost")  # wrong
"""


def test_mypy_accepts_a_program_and_sees_each_wrong_field(tmp_path: Path) -> None:
    good, bad = tmp_path / "good_program.py", tmp_path / "bad_program.py"
    good.write_text(GOOD)
    bad.write_text(BAD)
    # As a caller's own project has it: without our configuration and pydantic's plugin.
    argv = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    argv += ["--no-error-summary", f"--cache-dir={ROOT / '.mypy_cache' / 'caller'}"]
    argv += [str(good), str(bad)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line for line in errors if "bad_program.py" not in line] == [], done.stderr
    seen = {int(line.split(":")[1]) for line in errors}
    wrong = {n for n, line in enumerate(BAD.splitlines(), 1) if line.endswith("# wrong")}
    assert seen == wrong, done.stdout


WIDER: dict[str, Any] = {
    "cache": CacheFields | CacheWish | Literal["off", "exact"],
    "pinned": PinFields | Pin | None,
    "max_usd_per_million": str | int | float | Decimal | None,
    "max_cost_usd": str | int | float | Decimal | None,
}
"""What a Request takes besides the types that it declares."""

COVARIANT = {"variables"}
"""Declared as Mapping, so that a dict of texts fits; a Request takes only dicts."""


def bare(kind: Any) -> Any:
    """Return the type without the checks of its Annotated parts."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(bare(part) for part in get_args(kind))]  # noqa: UP007  # made at run time
    if get_origin(kind) in (list, dict):
        return get_origin(kind)[tuple(bare(part) for part in get_args(kind))]
    return kind


def test_the_typed_fields_are_those_of_a_request() -> None:
    typed, declared = get_type_hints(RequestFields), get_type_hints(Request, include_extras=True)
    assert typed.pop("instructions") == str | None  # it becomes one of the params
    declared = {name: declared[name] for name in Request.model_fields}
    assert list(typed) == list(declared), "the same fields in the same order"
    assert not RequestFields.__required_keys__
    assert [n for n, field in Request.model_fields.items() if field.is_required()] == []
    for name, kind in declared.items():
        if name not in COVARIANT:
            assert typed[name] == WIDER.get(name, bare(kind)), name
    for name in COVARIANT:
        assert get_args(typed[name]) == get_args(bare(declared[name]))
    assert list(get_type_hints(CacheFields)) == list(CacheWish.model_fields)
    for name, kind in get_type_hints(CacheWish, include_extras=True).items():
        if name in CacheWish.model_fields:
            assert get_type_hints(CacheFields)[name] == bare(kind), name


def test_each_typed_field_is_explained() -> None:
    explained = RequestFields.__doc__ or ""
    assert [name for name in Request.model_fields if name not in explained] == []


def test_the_names_of_usage_are_those_of_its_report() -> None:
    assert get_args(UsageKey) == BY


def test_a_caller_finds_the_public_names_and_no_others() -> None:
    assert dir(headgate) == sorted([*headgate.__all__, "__version__"])
    for name in headgate.__all__:
        found = getattr(headgate, name)
        if isinstance(found, type):
            assert found.__doc__, name
            own = {n: f for n, f in vars(found).items() if not n.startswith("_") and callable(f)}
            assert [n for n, f in own.items() if not f.__doc__] == [], name
