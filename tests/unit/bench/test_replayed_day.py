"""The day that a bench replays: its shares, and the saving that it is measured against."""

import json
from pathlib import Path

import pytest

from tests.bench.answers.day import CLICK_S, REPEAT_S, Arrival, made, read, spared


def arrival(at_s: float, prompt: str = "one", tenant: str = "t1", tokens: int = 10) -> Arrival:
    return Arrival(at_s, prompt, tenant, "u1", "standard", tokens)


def test_a_made_day_has_the_shares_of_a_real_one() -> None:
    day = made(2_000, hours=5)
    assert [one.at_s for one in day] == sorted(one.at_s for one in day)
    clicks = repeats = 0
    users: dict[tuple[str, str], float] = {}
    tenants: dict[tuple[str, str], float] = {}
    for one in day:
        user, tenant = (one.user, one.prompt), (one.tenant, one.prompt)
        if one.at_s - users.get(user, -CLICK_S) < CLICK_S:
            clicks += 1
        elif one.at_s - tenants.get(tenant, -REPEAT_S) < REPEAT_S:
            repeats += 1
        users[user] = tenants[tenant] = one.at_s
    assert clicks / len(day) == pytest.approx(0.05, abs=0.02)
    assert repeats / len(day) == pytest.approx(0.35, abs=0.05)


def test_a_perfect_cache_serves_a_tenant_for_the_lifetime_and_no_longer() -> None:
    day = [arrival(0), arrival(50), arrival(60, tenant="t2"), arrival(101), arrival(102, "two")]
    assert spared(day, lambda _: 100, lambda _: 1.0) == pytest.approx(1 / 5)
    assert spared(day, lambda _: 101, lambda _: 1.0) == pytest.approx(2 / 5)
    assert spared(day, lambda _: -1, lambda _: 1.0) == 0


def test_a_prompt_is_always_asked_with_one_limit(tmp_path: Path) -> None:
    common = {"prompt_id": "q1", "tenant": "t1", "user": "u1", "priority": "bulk"}
    lines = [{"t_s": n, "output_tokens": tokens, **common} for n, tokens in enumerate((9, 30, 12))]
    (tmp_path / "replay.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"id": "q1", "prompt": "Hello"}))
    assert [(one.at_s, one.max_tokens) for one in read(tmp_path)] == [(0, 12), (1, 12), (2, 12)]
