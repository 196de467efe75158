"""A provider's limits are used and not overrun: by four workers, beside others on the same key,
after a halving, with headers that lie, after Redis forgot everything, and with several keys.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.bench.governor.prompts import CHARS_PER_TOKEN
from tests.bench.governor.prompts import requests as sized
from tests.support import installation
from tests.support.child import ChildProcess
from tests.support.governor import (
    MODEL,
    OTHER,
    OTHER_POOL,
    POOL,
    THIRD,
    THIRD_POOL,
    Open,
    World,
    limits,
    world,
)
from tests.support.servers import ValkeyServer

__all__ = ["world"]
pytestmark = pytest.mark.slow

RPM, PER_S = 1200, 20
BURST = 0.5
"""Seconds of the rate that may come at once: half of what the provider itself lets through."""

LATENCY = ("--latency-ms", "150", "--latency-sigma", "0.5")
TOKENS = ("--chars-per-token", str(CHARS_PER_TOKEN))


def hardly_refused(here: World, per_100: float = 1) -> None:
    """Of a hundred requests let through, at most so many were refused for a limit."""
    stats = here.simulator.stats()
    refused = sum(n for kind, n in stats["refusals"].items() if kind.startswith("rate_limit"))
    assert refused <= max(1, stats["accepted"] * per_100 / 100), stats["refusals"]


def never_more_than(here: World, label: str, **per_minute: float) -> None:
    """In no second did the provider let through more than a second's limit and our burst."""
    most = here.simulator.stats()["pools"][label]["most_in_1s"]
    for measure, limit in per_minute.items():
        kind = measure.replace("_", "-")
        assert most[kind] <= limit / 60 * (1 + BURST) + limit / 60 * 0.1 + 1, (most, per_minute)


VENDORS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "calls of OpenAI": (MODEL, POOL, {"rpm": RPM}, 5),
    "tokens of OpenAI": (MODEL, POOL, {"rpm": 2 * RPM, "tpm": RPM * 100}, 20),
    "input of Anthropic": (THIRD, THIRD_POOL, {"rpm": 2 * RPM, "input_tpm": RPM * 85}, 10),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_four_workers_use_the_limit_and_meet_hardly_a_refusal(world: Open, vendor: str) -> None:
    model, pool, measures, max_tokens = VENDORS[vendor]
    flags = [f"--{name.replace('_', '-')}={amount}" for name, amount in measures.items()]
    here = world(*LATENCY, *TOKENS, *flags, catalog=limits(pool, **measures), workers=4)
    here.warm(OTHER if vendor.endswith("OpenAI") else "claude-sonnet-5-5")
    here.client.submit_many(sized(200, model=model, max_tokens=max_tokens))
    here.until_accepted(60)
    hardly_refused(here)
    seen = here.simulator.stats()["pools"][pool]
    took_s = seen["last_accepted_s"] - seen["first_accepted_s"]
    if vendor == "calls of OpenAI":
        never_more_than(here, pool, requests=RPM)
        assert seen["accepted"] <= PER_S * (took_s + BURST) + 1
        assert seen["accepted"] >= PER_S * took_s * 0.5, "a limit that is half used is wasted"
    assert all("Traceback" not in worker.log() for worker in here.workers)


@pytest.mark.parametrize("headers", ["none", "malformed", "full"])
def test_headers_that_are_missing_malformed_or_lie_lead_to_no_refusals_and_no_standstill(
    world: Open, headers: str
) -> None:
    measures: dict[str, Any] = {"rpm": RPM, "tpm": RPM * 200}
    flags = [f"--rpm={RPM}", f"--tpm={RPM * 200}", "--headers", headers]
    here = world(*LATENCY, *TOKENS, *flags, catalog=limits(**measures), workers=1)
    here.warm()
    ids = here.client.submit_many(sized(40, model=MODEL, max_tokens=5))
    here.until_ended(ids)
    hardly_refused(here)
    assert here.statuses(ids) == {"succeeded": 40}


def test_others_on_the_same_key_and_a_halved_limit_lead_to_few_refusals(world: Open) -> None:
    here = world(*LATENCY, *TOKENS, f"--rpm={RPM}", catalog=limits(rpm=RPM), workers=4)
    here.warm()
    others = here.folder / "others.log"
    argv = [sys.executable, "-m", "tests.bench.governor.stranger", "openai", here.simulator.url]
    argv += [MODEL, "5", str(PER_S / 3), str(others)]
    with installation.ended_afterwards(
        stranger := ChildProcess(argv, log_path=here.folder / "others.err")
    ):
        stranger.start()
        here.wait(lambda: others.exists() and others.read_text(), "the others to ask")
        here.client.submit_many(sized(400, model=MODEL, max_tokens=5))
        here.until_accepted(100)
        stranger.kill()
    theirs = [line.endswith("200") for line in others.read_text().splitlines()]
    stats = here.simulator.stats()
    ours = stats["refused"] - theirs.count(False)
    assert ours <= 3, (stats["refusals"], theirs.count(False))

    here.tell("_limits", {"rpm": RPM // 2})
    before, turned_s = here.accepted(), time.time()
    here.until_accepted(before + 30)
    calls = [call for call in here.calls() if call.at_s >= turned_s and call.model == MODEL]
    refused = [call.at_s - turned_s for call in calls if not call.accepted]
    assert len(refused) <= 5, refused
    assert max(refused, default=0) < 5, "within five seconds all know of it"


def test_a_redis_that_comes_back_empty_lets_no_burst_through(
    world: Open, valkey_factory: Callable[..., ValkeyServer]
) -> None:
    server = valkey_factory(appendonly=True)
    here = world(
        *LATENCY, f"--rpm={RPM}", catalog=limits(rpm=RPM), workers=2, server=server
    )  # fmt: skip
    here.warm()
    ids = here.submit(80)
    here.until_accepted(25)
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    server.start()
    here.until_ended(ids, within_s=40)
    assert here.statuses(ids) == {"succeeded": 80}
    hardly_refused(here)
    never_more_than(here, POOL, requests=RPM)


def test_the_limit_of_each_of_several_keys_is_used(world: Open) -> None:
    keys = {"OPENAI_API_KEY": "sk-one", "SECOND_KEY": "sk-two", "THIRD_KEY": "sk-three"}
    shown = ", ".join(f'"{name}"' for name in keys)
    overlay = f"[providers.openai]\napi_key_env = [{shown}]\n" + limits(rpm=RPM // 4)
    here = world(
        *LATENCY, f"--rpm={RPM // 4}", "--per-key", catalog=overlay, workers=0
    )  # fmt: skip
    plain = {"HEADGATE_SIMULATOR_URL": "", "OPENAI_BASE_URL": f"{here.simulator.url}/v1"}
    for _ in range(2):
        here.worker(**keys, **plain)
    here.warm()
    ids = here.submit(45)
    here.until_ended(ids)
    pools = here.simulator.stats()["pools"].items()
    accepted = sorted(pool["accepted"] for name, pool in pools if name.startswith(f"{POOL}#"))
    assert len(accepted) == 3
    assert min(accepted) >= 9, accepted
    hardly_refused(here)
    secrets = [*keys.values()]
    assert not any(secret in worker.log() for worker in here.workers for secret in secrets)


@pytest.mark.long
def test_models_of_one_family_share_the_limit_of_their_pool(world: Open) -> None:
    overlay = limits(OTHER_POOL, rpm=RPM // 2) + '[models."gpt-4o-mini"]\npool = "gpt-4o"\n'
    shared = f"gpt-4o*:rpm={RPM // 2}"
    here = world(*LATENCY, "--limit", shared, catalog=overlay, workers=2)
    here.warm("gpt-4.1-mini")
    ids = here.submit(15) + here.submit(15, model="gpt-4o")
    here.until_ended(ids)
    hardly_refused(here)
    never_more_than(here, "openai/gpt-4o*", requests=RPM // 2)


@pytest.mark.parametrize("kind", ["continuous", "fixed windows"])
def test_a_provider_that_keeps_a_second_of_its_limit_is_used_all_the_same(
    world: Open, kind: str
) -> None:
    """Its headers say what the second has left, beside the limit of the minute."""
    tpm = RPM * 100
    flags = [f"--rpm={2 * RPM}", f"--tpm={tpm}", "--headers=bucket"]
    flags += ["--fixed-windows"] * (kind != "continuous")
    catalog = f'[pools."{POOL}"]\nrpm = {2 * RPM}\ntpm = {tpm}\n'
    here = world(*LATENCY, *TOKENS, *flags, catalog=catalog, workers=4)
    here.warm(OTHER)
    here.client.submit_many(sized(200, model=MODEL, max_tokens=20))
    here.until_accepted(120)
    stats = here.simulator.stats()
    seen = stats["pools"][POOL]
    took_s = seen["last_accepted_s"] - seen["first_accepted_s"]
    used = seen["charged"]["tokens"] / (tpm / 60 * took_s)
    assert used >= 0.5, "a busy machine delays calls; the limit read as used up lets 2 % through"
    hardly_refused(here, per_100=5)
