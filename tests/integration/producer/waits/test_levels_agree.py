"""The figures that people are shown are those by which the script grants."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.producer.waits.levels import BucketLevel, gate, levels, limits_in_force
from headgate.shared.broker.figures import DAY_MS
from headgate.shared.broker.include import composed, read_file
from headgate.shared.broker.keys import Keys
from tests.support.servers import ValkeyServer

POOL, TENANT = "openai/gpt-4o", "acme"
KEYS = Keys("here:")
RATED = ("rpm", "tpm", "input_tpm", "output_tpm")

PROBE = composed(
    "probe",
    lambda name: (
        """
-- @include lib/gate
local vendor = vendor_scopes('openai/gpt-4o', 'key0')
local ticket = {tenant = 'acme', user = '', tier = '', model = 'm', letters = letters_of('p')}
local gate = {pace = vendor.gate.pace_now, ceiling = vendor.gate.ceiling_now}
local found = {now = string.format('%.6f', now), gate = gate}
if vendor.gate['until'] and now < vendor.gate['until'] then
  found.gate['until'] = vendor.gate['until']
end
for name, scope in pairs({pool = vendor[1], caller = caller_scopes(ticket)[1]}) do
  found[name] = {running = scope.bucket.running, day_is_over = wait_for(scope, 'rpd', 1) > 0}
  for _, measure in ipairs({'rpm', 'tpm', 'input_tpm', 'output_tpm'}) do
    local state = filled(scope, measure, 0)
    if state then
      found[name][measure] = {limit = state.limit, level = state.level, capacity = state.capacity,
        rate = state.rate * 1000, wait_ms = wait_for(scope, measure, 1)}
    end
  end
end
return cjson.encode(found)
"""
        if name == "probe"
        else read_file(name)
    ),
)

amounts = st.integers(1, 50_000_000)
limits = st.dictionaries(
    st.sampled_from([*RATED, "rpd", "concurrent", "burst_s", "ramp_from"]), amounts, min_size=1
).map(lambda found: " ".join(f"{name}={n}" for name, n in found.items()))

# Levels with the moment at which they were true, as `save_buckets` writes them; ages in ms.
ages = st.integers(-5_000, 4_000_000)
parts: dict[str, st.SearchStrategy[float]] = {
    "level": st.integers(-1_000_000, 50_000_000),
    "at": ages,
    "seen": amounts,
    "use": amounts,
    "top": amounts,
    "before": amounts,
    "sum": amounts,
    "floor": amounts,
    "told_at": st.integers(-5_000, 150_000),
    "fixed": st.integers(0, 9),
    "window_at": ages,
    "share": st.floats(0.9, 1),
    "share_at": ages,
}
states = st.fixed_dictionaries(
    {},
    optional={f"{measure}.{part}": value for measure in RATED for part, value in parts.items()}
    | {"running": st.integers(0, 1000), "rpd.day": st.integers(-1, 1), "rpd.used": amounts},
)
gates = st.fixed_dictionaries(
    {},
    optional={
        "pace": st.floats(0.05, 1),
        "ceiling": st.integers(1, 500),
        "until": st.integers(-100_000, 100_000).filter(lambda ms: abs(ms) > 20_000),
    },
)


def stored(state: dict[str, float], now_ms: int) -> dict[str, str]:
    """The fields of a bucket; ages become moments, and a day is counted from today."""
    found = dict(state)
    for name, value in state.items():
        if name.endswith((".at", "_at")):
            found[name] = now_ms - value
    if "rpd.day" in state:
        found["rpd.day"] += now_ms // DAY_MS
    return {name: f"{value:.3f}" for name, value in found.items()}


def same(level: BucketLevel, found: dict[str, Any], now_ms: float, has_level: bool) -> None:
    if level.measure == "concurrent":
        assert level.running == found["running"]
    elif level.measure == "rpd":
        assert (level.wait_s(1, now_ms) > 0) == found["day_is_over"]
    else:
        of_script = found[level.measure]
        assert level.limit.amount == of_script["limit"]
        assert level.capacity == pytest.approx(of_script["capacity"])
        assert level.rate_per_s == pytest.approx(of_script["rate"])
        if has_level:
            assert level.level == pytest.approx(of_script["level"], rel=1e-6, abs=0.01)
            if level.capacity and level.capacity > 1:
                wait_ms = level.wait_s(1, now_ms) * 1000
                assert wait_ms == pytest.approx(of_script["wait_ms"], rel=1e-6, abs=1.1)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(limits, limits, states, states, gates, st.integers(0, 4_000_000))
def test_levels_and_gates_are_those_of_the_script(
    valkey: ValkeyServer, of_pool: str, of_tenant: str, pool: dict[str, float],
    tenant: dict[str, float], gate_state: dict[str, float], age_ms: int,
) -> None:  # fmt: skip
    with valkey.client() as client:
        client.flushall()
        seconds, micros = client.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        written = {name: f"{value}" for name, value in gate_state.items()}
        if "pace" in written:
            written["pace_at"] = f"{now_ms - age_ms}"
        if "ceiling" in written:
            written |= {"ceiling_at": f"{now_ms - age_ms % 120_000}", "ceiling_from": "600"}
        if "until" in written:
            written |= {"until": f"{now_ms + gate_state['until']}", "why": "limited"}
        buckets = {"pool": stored(pool, now_ms), "caller": stored(tenant, now_ms)}
        with client.pipeline() as pipe:
            pipe.hset(KEYS.limits(), f"pool/{POOL}", of_pool)
            pipe.hset(KEYS.limits(), f"tenant/{TENANT}", of_tenant)
            for name, key in (
                ("pool", KEYS.bucket(f"pool/{POOL}", "key0")),
                ("caller", KEYS.bucket(f"tenant/{TENANT}")),
            ):
                if buckets[name]:
                    pipe.hset(key, mapping=buckets[name])
            if written:
                pipe.hset(KEYS.gate(POOL, "key0"), mapping=written)
            pipe.execute()
        reply: Any = client.eval(PROBE, 0, KEYS.prefix)
    found = json.loads(reply)
    script_now_ms = float(found["now"])
    shown = gate(written, script_now_ms)
    assert shown.pace == pytest.approx(found["gate"]["pace"], abs=1e-6)
    assert shown.ceiling == found["gate"].get("ceiling")
    assert shown.is_open == ("until" not in found["gate"])
    for name, text in (("pool", of_pool), ("caller", of_tenant)):
        of_provider = name == "pool"
        # A caller's bucket holds what the provider told in no state that scripts write.
        fields = {k: v for k, v in buckets[name].items() if of_provider or not k.endswith(".seen")}
        for level in levels(
            limits_in_force(text), fields, script_now_ms, of_provider=of_provider, pace=shown.pace
        ):
            same(level, found[name], script_now_ms, f"{level.measure}.level" in fields)
