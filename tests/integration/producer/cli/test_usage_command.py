"""`headgate usage` and Client.usage: the forms, bad input, and no need of Redis."""

import csv
import io
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from headgate import AsyncClient, Client
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.shared.settings import Settings
from tests.support.command import headgate
from tests.support.usage import START_MS, line, put

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
def env(database_url: str, tmp_path: Path) -> dict[str, str]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    rows = [
        line(tenant="acme", user_id="u", cost_pico_usd=2_000_000),
        line(tenant="omni", model="gpt-4o-mini", cached="exact", saved_pico_usd=5_000_000),
        line(START_MS + DAY_MS, tenant="omni, Inc", status="failed", cost_pico_usd=None),
    ]
    put(engine, *rows)
    engine.dispose()
    return {
        "HEADGATE_REDIS_URL": NO_REDIS,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_HOME": str(tmp_path / "home"),
    }


def test_the_command_prints_a_table_csv_or_json_without_redis(env: dict[str, str]) -> None:
    shown = headgate(["usage", "--by", "tenant"], env)
    assert (shown.code, shown.err) == (
        0,
        "headgate: jobs whose cost is unknown: 1 (counted as 0 USD)\n",
    )
    head, *rows = [text.split("\t") for text in shown.out.splitlines()]
    result = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(result) == ["acme", "omni", "omni, Inc", "total"]
    assert (result["omni"]["hits"], result["omni"]["saved USD"]) == ("100.0%", "0.000005")
    assert (result["total"]["requests"], result["total"]["USD"]) == ("3", "0.000002001")
    assert result["total"]["errors"] == "33.3%"

    written = headgate(["usage", "--by", "user,day", "--csv"], env)
    records = list(csv.DictReader(io.StringIO(written.out)))
    assert [(r["tenant"], r["user"], r["day"], r["cost_usd"]) for r in records] == [
        ("acme", "u", "2026-02-27", "0.000002"),
        ("omni", "", "2026-02-27", "0.000000001"),
        ("omni, Inc", "", "2026-02-28", "0"),
    ]

    report = headgate(["usage", "--until", "2026-02-27", "--model", "gpt-4o", "--json"], env)
    document = report.document
    assert document["by"] == ["model"]
    assert document["until"] == "2026-02-28T00:00:00.000Z"
    assert [row["model"] for row in document["rows"]] == ["gpt-4o"]
    assert (document["total"]["requests"], document["total"]["cost_usd"]) == (1, "0.000002")


def test_a_name_in_csv_is_no_formula(sqlite_url: str, tmp_path: Path) -> None:
    """A spreadsheet would run it; figures and other names stay as they are."""
    names = {
        "=HYPERLINK(1)": "'=HYPERLINK(1)", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)",
        "\t=1": "'\t=1", "\r=1": "'\r=1", "a=b": "a=b", "'=1": "'=1",
    }  # fmt: skip
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    put(engine, *(line(tenant=name, cost_pico_usd=2_000_000) for name in names))
    engine.dispose()
    env = {"HEADGATE_DATABASE_URL": sqlite_url, "HEADGATE_HOME": str(tmp_path)}
    written = headgate(["usage", "--by", "tenant", "--csv"], env)
    rows = list(csv.DictReader(io.StringIO(written.out, newline="")))
    assert sorted(row["tenant"] for row in rows) == sorted(names.values())
    assert {row["cost_usd"] for row in rows} == {"0.000002"}
    document = headgate(["usage", "--by", "tenant", "--json"], env).document
    assert sorted(row["tenant"] for row in document["rows"]) == sorted(names), "JSON is exact"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--by", "hour"], "by: 'hour': use one or more of tenant, user"),
        (["--since", "2026-02-30"], "--since: '2026-02-30': there is no such day"),
        (["--until", "soon"], "--until: 'soon': write 30s, 10m"),
        (["--csv", "--json"], "--csv and --json cannot be used together"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_would_be_right(
    sqlite_url: str, tmp_path: Path, options: list[str], fault: str
) -> None:
    env = {"HEADGATE_DATABASE_URL": sqlite_url, "HEADGATE_HOME": str(tmp_path)}
    refused = headgate(["usage", *options], env)
    assert (refused.code, refused.out) == (2, "")
    assert fault in refused.err


async def test_both_clients_return_the_same_without_redis(env: dict[str, Any]) -> None:
    chosen = Settings(
        redis_url=NO_REDIS, database_url=env["HEADGATE_DATABASE_URL"], home=env["HEADGATE_HOME"]
    )
    async with AsyncClient(chosen) as client:
        there = await client.usage("tenant", since=date(2026, 2, 27), limit=1)
    with Client(chosen) as blocking:
        here = blocking.usage("tenant", since=date(2026, 2, 27), limit=1)
    assert here == there
    assert [dict(row.key) for row in here.rows] == [{"tenant": "acme"}]
    assert here.total.requests == 3
