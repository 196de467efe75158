"""The simulator: figures of its pools, limits on growth, wrong headers, lengths on request."""

from __future__ import annotations

import math
from statistics import NormalDist, median, stdev
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.workers.provider import RateSeen, Reset
from headgate.workers.providers.rate_headers import seen
from headgate.workers.simulator.answers import MOST_TOKENS, lengths
from headgate.workers.simulator.behaviour import Act, Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.faults import parse_rates
from headgate.workers.simulator.forms import CHAT, MESSAGES
from headgate.workers.simulator.limits import LimitTable, SimulatedCharge, SimulatedLimit
from headgate.workers.simulator.ramp import Ramp, RampRule
from headgate.workers.simulator.rate_headers import HEADER_STYLES, HeaderStyle
from headgate.workers.simulator.throughput import PoolThroughput

NOW_S = 1_795_219_200.0


class Rig:
    """An engine on a clock that the test moves."""

    def __init__(self, **behaviour: Any) -> None:
        self.at_s = 0.0
        limits = behaviour.pop("limits", SimulatedLimit(rpm=600, tpm=600_000))
        self.engine = Engine(
            Behaviour(limits=LimitTable(limits), **behaviour),
            lambda: self.at_s,
            lambda: NOW_S + self.at_s,
        )

    def ask(self, prompt: str = "hello", path: str = CHAT, key: str = "k", **more: Any) -> Act:
        model = "claude-haiku-4-5" if path == MESSAGES else "gpt-4o-mini"
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
        return self.engine.decide(path, key, orjson.dumps(body))

    def pool(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.stats.report()["pools"][label]
        return found


def test_a_pool_reports_what_it_accepted_charged_and_refused_and_when() -> None:
    rig = Rig(limits=SimulatedLimit(rpm=120, tpm=600_000))
    statuses = [rig.ask(max_tokens=98).status for _ in range(3)]
    rig.at_s = 2.0
    statuses += [rig.ask("[[fault:503]]", max_tokens=98).status]
    assert statuses == [200, 200, 429, 503]
    shown = rig.pool("openai/gpt-4o-mini")
    assert (shown["accepted"], shown["refused"]) == (3, 1)
    assert shown["charged"] == {"requests": 3, "tokens": 302}
    assert shown["most_in_1s"] == {"requests": 2, "tokens": 200}
    assert shown["refusals"] == {"requests": 1}
    assert shown["faults"] == {"503": 1}
    assert (shown["first_accepted_s"], shown["last_accepted_s"]) == (NOW_S, NOW_S + 2)
    rig.engine.reset()
    assert rig.engine.stats.report()["pools"] == {}


def test_both_dialects_and_each_key_have_figures_of_their_own_and_no_key_is_shown() -> None:
    rig = Rig(per_key=True)
    rig.ask(key="sk-one")
    rig.ask(key="sk-two")
    rig.ask(path=MESSAGES, max_tokens=10)
    labels = list(rig.engine.stats.report()["pools"])
    assert len(set(labels)) == 3
    assert [label.partition("#")[0] for label in labels] == [
        "openai/gpt-4o-mini",
        "openai/gpt-4o-mini",
        "anthropic/claude-haiku-4-5",
    ]
    assert "sk-" not in str(labels)
    assert set(rig.pool(labels[2])["charged"]) == {"requests", "input-tokens", "output-tokens"}


def test_figures_outlive_a_change_of_limits() -> None:
    rig = Rig()
    rig.ask()
    rig.engine.pools.change(LimitTable(SimulatedLimit(rpm=60)), 0.0)
    rig.at_s = 10.0
    rig.ask()
    assert rig.pool("openai/gpt-4o-mini")["accepted"] == 2


@given(arrivals=st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 50)), min_size=1, max_size=60))
def test_the_most_in_any_second_is_that_of_all_windows(
    arrivals: list[tuple[float, int]],
) -> None:
    flow, now_s, events = PoolThroughput(), 0.0, []
    for gap_s, tokens in arrivals:
        now_s += gap_s
        events.append((now_s, tokens))
        flow.accept(
            now_s, now_s, (SimulatedCharge("requests", 1), SimulatedCharge("tokens", tokens))
        )
    most = flow.report()["most_in_1s"]
    windows = [[n for at, n in events if end - 1 < at <= end] for end, _ in events]
    assert most == {
        "requests": max(map(len, windows)),
        "tokens": max(map(sum, windows)),
    }


def test_headers_show_the_moment_of_admission_also_when_the_answer_comes_late() -> None:
    rig = Rig(limits=SimulatedLimit(rpm=600, tpm=60_000), latency_ms=60_000)
    act = rig.ask(max_tokens=498)
    assert act.delay_s == 60
    headers = {name: value for name, value in act.headers.items() if "ratelimit" in name}
    assert set(seen(headers, NOW_S)) == {
        RateSeen("rpm", 600.0, 599.0, 1.0, reset=Reset(0.1, 0.001)),
        RateSeen("tpm", 60_000.0, 59_500.0, 1.0, reset=Reset(0.5, 0.001)),
    }


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("telling", HEADER_STYLES)
def test_headers_may_be_true_missing_malformed_or_say_that_all_is_left(
    telling: HeaderStyle, path: str
) -> None:
    rig = Rig(headers=telling)
    for _ in range(20):
        act = rig.ask(path=path, max_tokens=2000)
        headers = {name: value for name, value in act.headers.items() if "ratelimit" in name}
        found = {one.measure: one for one in seen(headers, NOW_S)}
        match telling:
            case "true":
                assert len(found) == (3 if path == MESSAGES else 2)
            case "none":
                assert headers == {}
            case "malformed":
                assert headers
                assert found == {}
            case "full":
                for name, value in headers.items():
                    if "remaining" in name:
                        assert value == headers[name.replace("remaining", "limit")]
                assert "rpm" not in found


def test_growth_above_a_floor_is_refused_in_each_vendors_words() -> None:
    for path, code in ((CHAT, "slow_down"), (MESSAGES, "ramp_limit_exceeded")):
        rig = Rig(limits=SimulatedLimit(), ramp=RampRule(6000))
        assert rig.ask("x" * 400, path, max_tokens=9).status == 200
        act = rig.ask("x" * 400, path, max_tokens=9)
        error = orjson.loads(act.body)["error"]
        assert act.status == 429
        assert (error.get("details") or {"error_code": error.get("code")})["error_code"] == code
        assert act.headers["retry-after"] == "1"
        assert rig.engine.stats.refusals == {"rate_limit_ramp": 1}
        rig.at_s = 1.0
        assert rig.ask("x" * 400, path, max_tokens=9).status == 200


def taken(ramp: Ramp, start_s: float, seconds: float, tpm: float) -> int:
    """Requests of 100 tokens that get through when they come at `tpm` from `start_s` on."""
    count = int(seconds * tpm / 6000)
    passed = 0
    for n in range(count):
        if not ramp.wait_s(start_s + (n + 1) * 6000 / tpm, 100):
            ramp.take(100)
            passed += 1
    return passed


def test_after_a_window_at_one_rate_half_as_much_again_is_let_through_and_no_more() -> None:
    ramp = Ramp(RampRule(60_000, growth=0.5, window_s=15.0), burst_s=1.0, now_s=0.0)
    assert taken(ramp, 0.0, 16.0, 60_000) == pytest.approx(160, abs=2)
    assert taken(ramp, 16.0, 12.0, 200_000) == pytest.approx(12 * 15, abs=20)
    assert ramp.allowed_tpm == pytest.approx(90_000, rel=0.02)


def test_steady_growth_of_half_in_a_window_is_never_refused() -> None:
    ramp = Ramp(RampRule(60_000, growth=0.5, window_s=15.0), burst_s=1.0, now_s=0.0)
    now_s, refused = 0.0, 0
    while now_s < 60:
        now_s += 6000 / (60_000 * math.exp(max(0.0, now_s - 16) / 15 * math.log(1.5)))
        if ramp.wait_s(now_s, 100):
            refused += 1
        else:
            ramp.take(100)
    assert refused == 0
    assert ramp.allowed_tpm > 150_000


def test_who_was_silent_for_two_windows_starts_from_the_floor() -> None:
    ramp = Ramp(RampRule(60_000, growth=0.5, window_s=15.0), burst_s=1.0, now_s=0.0)
    taken(ramp, 0.0, 60.0, 200_000)
    assert ramp.allowed_tpm > 100_000
    ramp.wait_s(100.0, 1)
    assert ramp.allowed_tpm == 60_000


def test_prose_has_lognormal_lengths_to_the_token_when_asked() -> None:
    rig = Rig(limits=SimulatedLimit(), output_tokens=200.0, output_sigma=0.8)
    found: list[int] = []
    for n in range(600):
        act = rig.ask(f"prompt {n}")
        assert act.bill is not None
        found.append(act.bill.usage.output_tokens)
    assert median(found) == pytest.approx(200, rel=0.15)
    assert stdev(map(math.log, found)) == pytest.approx(0.8, rel=0.1)
    share = sum(one <= 200 * math.exp(0.8 * NormalDist().inv_cdf(0.95)) for one in found) / 600
    assert share == pytest.approx(0.95, abs=0.03)
    again = rig.ask("prompt 0")
    assert again.bill is not None
    assert again.bill.usage.output_tokens == found[0]


def test_lengths_that_do_not_spread_are_all_the_same_and_max_tokens_still_cuts() -> None:
    rig = Rig(limits=SimulatedLimit(), output_tokens=30.0, output_sigma=0.0)
    bills = [rig.ask(f"{n}").bill for n in range(5)] + [rig.ask("x", max_tokens=7).bill]
    assert [bill and bill.usage.output_tokens for bill in bills] == [30, 30, 30, 30, 30, 7]


def test_the_widest_spread_makes_no_answer_that_nobody_could_send() -> None:
    assert max(lengths(MOST_TOKENS, 5.0)) == MOST_TOKENS


def test_flex_by_rate_meets_only_those_who_ask_for_that_tier() -> None:
    rig = Rig(limits=SimulatedLimit(), rates=parse_rates("flex=1"))
    assert rig.ask().status == 200
    act = rig.ask(service_tier="flex")
    assert act.status == 429
    assert orjson.loads(act.body)["error"]["code"] == "resource_unavailable"
    assert rig.ask("[[fault:flex]]").status == 429
    assert orjson.loads(Rig().ask(service_tier="flex").body)["service_tier"] == "flex"
