"""What people are told of buckets and gates: bounds that hold for any state that Redis may hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.waits.levels import (
    MEASURES,
    BucketLevel,
    GateState,
    LimitInForce,
    Load,
    drain_s,
    gate,
    levels,
    limits_in_force,
)
from headgate.shared.broker.figures import DAY_MS

NOW = 1_763_700_000_000


def one(
    text: str, bucket: dict[str, str], *, of_provider: bool = False, pace: float = 1
) -> BucketLevel:
    [level] = levels(limits_in_force(text), bucket, NOW, of_provider=of_provider, pace=pace)
    return level


def test_an_operators_limits_override_the_catalogs() -> None:
    found = limits_in_force("rpm=60 tpm=1000 burst_s=2", "rpm=5 tpm=none concurrent=3")
    assert found == {
        "rpm": LimitInForce(5, "set"),
        "burst_s": LimitInForce(2, "catalog"),
        "concurrent": LimitInForce(3, "set"),
    }


def test_a_bucket_fills_by_its_rate_up_to_its_capacity() -> None:
    level = one("rpm=60", {"rpm.level": "10", "rpm.at": str(NOW - 5000)})
    assert (level.level, level.capacity, level.rate_per_s) == (15, 60, 1)
    assert level.fill == 0.25
    full = one("rpm=60", {"rpm.level": "10", "rpm.at": str(NOW - 500_000)})
    assert full.fill == 1


def test_a_debt_is_shown_and_waited_for() -> None:
    level = one("tpm=600", {"tpm.level": "-300", "tpm.at": str(NOW)})
    assert level.fill == -0.5
    assert level.wait_s(100, NOW) == 40


def test_a_lower_limit_that_the_provider_told_binds_and_a_higher_one_does_not() -> None:
    told = {"rpm.seen": "30.000"}
    assert one("rpm=60", told, of_provider=True).limit == LimitInForce(30, "provider")
    assert one("rpm=20", told, of_provider=True).limit == LimitInForce(20, "catalog")
    assert one("rpm=60", told).limit == LimitInForce(60, "catalog")
    [only] = levels({}, told, NOW, of_provider=True)
    assert only.limit == LimitInForce(30, "provider")


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("absurd", ["-1.0", "0", "5e-324", "nan", "inf", "x", ""])
def test_an_absurd_limit_that_a_provider_told_is_none(measure: str, absurd: str) -> None:
    told = {f"{measure}.seen": absurd}
    assert levels({}, told, NOW, of_provider=True) == []
    assert one(f"{measure}=60", told, of_provider=True).limit == LimitInForce(60, "catalog")


def test_a_slow_pace_slows_tokens_and_no_calls() -> None:
    tokens = one("tpm=60000", {}, of_provider=True, pace=0.5)
    calls = one("rpm=60000", {}, of_provider=True, pace=0.5)
    assert tokens.rate_per_s == pytest.approx(499)
    assert calls.rate_per_s == pytest.approx(998)


def test_a_large_limit_is_used_as_far_as_the_ramp_of_its_pool_allows() -> None:
    limits = "tpm=10000000 ramp_from=1000000"
    used = {"tpm.use": "5000000", "tpm.at": str(NOW)}
    cold, warm = one(limits, {}, of_provider=True), one(limits, used, of_provider=True)
    assert cold.rate_per_s == pytest.approx(1_000_000 * 0.998 / 60)
    assert warm.rate_per_s == pytest.approx(7_000_000 * 0.998 / 60)
    assert (cold.ramp_a_minute, warm.ramp_a_minute) == (1_000_000, 7_000_000)
    without = one("tpm=10000000", {}, of_provider=True)
    assert without.rate_per_s == pytest.approx(10_000_000 * 0.998 / 60)
    assert without.ramp_a_minute is None


def test_a_bucket_is_shown_as_deep_as_its_provider_has_told() -> None:
    told = {"tpm.level": "9e9", "tpm.at": str(NOW), "tpm.top": "600000", "tpm.told_at": str(NOW)}
    deep = one("tpm=600000", told, of_provider=True)
    assert deep.capacity == pytest.approx(600_000 - 600_000 / 60 / 2)
    assert one("tpm=600000 burst_s=4", told, of_provider=True).capacity == pytest.approx(
        600_000 / 60 * 4 * 0.5 * 0.998, rel=0.01
    )
    stale = told | {"tpm.told_at": str(NOW - 121_000)}
    assert one("tpm=600000", stale, of_provider=True).capacity == pytest.approx(5_000, rel=0.01)


def test_a_fixed_window_is_waited_for_until_it_ends() -> None:
    told = {"tpm.level": "0", "tpm.at": str(NOW), "tpm.top": "100000", "tpm.told_at": str(NOW),
            "tpm.fixed": "5", "tpm.window_at": str(NOW - 4_020)}  # fmt: skip
    level = one("tpm=600000", told, of_provider=True)
    assert (level.capacity, level.window_ms) == (100_000, 10_000)
    assert level.wait_s(1, NOW) == pytest.approx(6)
    assert level.wait_s(250_000, NOW) == pytest.approx(26)


def test_a_day_that_is_used_up_is_waited_for_until_midnight_and_longer() -> None:
    today = NOW // DAY_MS
    level = one("rpd=100", {"rpd.day": str(today), "rpd.used": "90"})
    assert (level.level, level.fill) == (10, 0.1)
    until_midnight = (DAY_MS - NOW % DAY_MS) / 1000
    assert level.wait_s(10, NOW) == 0
    assert level.wait_s(11, NOW) == until_midnight
    assert level.wait_s(211, NOW) == until_midnight + 2 * 86_400
    yesterday = one("rpd=100", {"rpd.day": str(today - 1), "rpd.used": "90"})
    assert yesterday.fill == 1


def test_calls_at_once_are_no_rate() -> None:
    level = one("concurrent=4", {"running": "3"})
    assert (level.running, level.fill) == (3, 0.25)
    assert drain_s(Load(100), [[level]], NOW) is None


def test_keys_share_a_load() -> None:
    level = one("rpm=60", {"rpm.level": "0", "rpm.at": str(NOW)})
    assert drain_s(Load(60), [[level]], NOW) == 60
    assert drain_s(Load(60), [[level], [level]], NOW) == 30


def test_the_tightest_measure_decides_how_long_it_takes() -> None:
    found = levels(
        limits_in_force("rpm=600 tpm=6000"),
        {"rpm.level": "0", "tpm.level": "0"},
        NOW,
        of_provider=False,
    )
    assert drain_s(Load(10, 500, 500), [found], NOW) == 10


LOWERED = {"ceiling": "10", "ceiling_from": "70"}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, GateState()),
        ({"until": str(NOW - 1), "why": "limited"}, GateState()),
        ({"until": str(NOW + 9), "why": "limited"}, GateState(NOW + 9, "limited")),
        ({"pace": "0.5", "pace_at": str(NOW - 900_000)}, GateState(pace=0.75)),
        ({"pace": "0.5", "pace_at": str(NOW - 4_500_000)}, GateState()),
        (LOWERED | {"ceiling_at": str(NOW - 20_000)}, GateState(ceiling=30)),
        (LOWERED | {"ceiling_at": str(NOW - 200_000)}, GateState()),
    ],
)
def test_a_gate_opens_by_its_time_and_what_was_lowered_grows_back(
    fields: dict[str, str], found: GateState
) -> None:
    assert gate(fields, NOW) == found


words = st.one_of(
    st.floats().map(str), st.integers(-(10**15), 10**15).map(str), st.sampled_from(["", "x", "nan"])
)
fields = st.sampled_from(
    [f"{measure}.{part}" for measure in MEASURES for part in ("level", "at", "seen", "use", "day")]
    + ["running", "rpd.used", "until", "why", "pace", "pace_at", "ceiling", "ceiling_at"]
)
texts = st.dictionaries(st.sampled_from(MEASURES), st.integers(1, 10**12)).map(
    lambda found: " ".join(f"{name}={n}" for name, n in found.items())
)


@given(texts, st.dictionaries(fields, words), st.booleans(), st.floats(0.05, 1))
def test_whatever_redis_holds_levels_keep_their_bounds(
    text: str, state: dict[str, str], of_provider: bool, pace: float
) -> None:
    for level in levels(limits_in_force(text), state, NOW, of_provider=of_provider, pace=pace):
        assert level.fill is None or level.fill <= 1 + 1e-9
        assert level.wait_s(1, NOW) >= 0
        assert not math.isnan(level.wait_s(10**9, NOW))
    found = gate(state, NOW)
    assert found.pace <= 1
    assert found.is_open or (found.until_ms or 0) > NOW


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_more_work_never_takes_less_time(rpm: int, jobs: int, more: int) -> None:
    found = levels(limits_in_force(f"rpm={rpm}"), {"rpm.level": "0"}, NOW, of_provider=False)
    less, longer = (drain_s(Load(n), [found], NOW) for n in (jobs, jobs + more))
    assert less is not None
    assert longer is not None
    assert less <= longer
