"""`headgate budgets`, and budgets that an operator sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.budgets import USD, Treasury
from tests.support.command import Ended, headgate
from tests.support.servers import ValkeyServer


@pytest.fixture
def treasury(valkey: ValkeyServer) -> Iterator[Treasury]:
    with valkey.client(decode_responses=False) as client:
        yield Treasury(client)


@pytest.fixture
def env(valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    return {"HEADGATE_REDIS_URL": valkey.url, "HEADGATE_HOME": str(tmp_path / "home")}


def done(env: dict[str, str], *arguments: str) -> Ended:
    ended = headgate(arguments, env)
    assert ended.code == 0, ended
    return ended


def test_each_budget_is_shown_with_what_is_spent_and_held(
    treasury: Treasury, env: dict[str, str]
) -> None:
    treasury.budget({"tenant/*": "usd_per_day=10 usd_per_month=100 hard=1"})
    treasury.at_least("tenant/a%2Fb", 105 * USD // 10)
    done(env, "limits", "set", "global", "usd_per_day=20.5")
    found = done(env, "budgets", "--json").document
    result = [(row["scope"], row["state"], row["from"], row["budget_usd"]) for row in found]
    assert result == [
        ("global", "unread", "set", "20.5"),
        ("tenant/a/b", "spent", "catalog", "10"),
        ("tenant/a/b", "open", "catalog", "100"),
    ]
    assert (found[1]["spent_usd"], found[1]["held_usd"], found[1]["share"]) == ("10.5", "0", 1.05)
    assert "tenant/a/b" in done(env, "budgets").out


def test_without_a_budget_it_says_how_to_set_one(env: dict[str, str]) -> None:
    ended = done(env, "budgets")
    assert ended.out == ""
    assert "[budget]" in ended.err
    assert done(env, "budgets", "--json").document == []


def test_a_budget_that_makes_no_sense_is_refused(env: dict[str, str]) -> None:
    for arguments, fault in (
        (("pool/openai/gpt-4o", "usd_per_day=5"), "global, tenant/NAME or user/TENANT/NAME"),
        (("global", "usd_per_day=-1"), "give a number from 0 to 1000000, or none"),
        (("global", "usd_per_day=lots"), "give a number"),
        (("tenant/a", "hard=0"), "give a number from 0.01 to 100"),
    ):
        ended = headgate(("limits", "set", *arguments), env)
        assert ended.code == 2
        assert fault in ended.err, (arguments, ended.err)


def test_the_maximum_cost_of_a_job_is_an_option_of_submit(env: dict[str, str]) -> None:
    for arguments, fault in (
        (("--model", "gpt-4o", "--max-cost-usd", "0.000001"), "--max-cost-usd: '0.000001'"),
        (("--model", "gpt-4o", "--max-cost-usd", "much"), "--max-cost-usd: 'much'"),
        (("--model", "auto", "--max-usd-per-million", "0"), "--max-usd-per-million: '0'"),
    ):
        ended = headgate(("submit", *arguments, "Say hello"), env)
        assert (ended.code, ended.out) == (2, "")
        assert fault in ended.err
    best = ("--model", "auto", "--prefer", "quality", "--max-usd-per-million", "100")
    assert done(env, "submit", *best, "Say hello").out
