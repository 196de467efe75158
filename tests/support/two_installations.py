"""Two installations, each with a Redis of its own, that share the limit of one provider's key."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import redis

from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.limits import LimitTable, SimulatedLimit
from headgate.workers.simulator.rate_headers import HeaderStyle
from tests.bench.governor.prompts import CHARS_PER_TOKEN, mean_tokens
from tests.bench.governor.vendors import BINDING
from tests.support.servers import ValkeyServer
from tests.support.virtual_fleet import Fleet, amounts, jobs_of_all_lengths, omniscient

MODEL, POOL, MAX_TOKENS = "gpt-4o-mini", "openai/gpt-4o-mini", 40
STEP_S = 0.001
"""The two take turns on one clock in steps of this length."""


@dataclass(frozen=True, slots=True)
class Split:
    """How two installations share a limit: the share of it that each catalog names.

    `both_work`: the second has jobs, too. `is_shallow`: both catalogs say `burst_s = 1`.
    """

    name: str
    shares: tuple[float, float]
    headers: HeaderStyle = "bucket"
    both_work: bool = True
    is_shallow: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """Of what an omniscient sender gets through: both, and each. `refused_per_100` accepted."""

    share: float
    each: tuple[float, float]
    refused_per_100: float


def share_limit(
    clients: tuple[redis.Redis, redis.Redis], split: Split, *, rpm: int = 1200, depth_s: float = 10,
    settle_s: float = 20.0, seconds: float = 60.0,
) -> Shared:  # fmt: skip
    """Let both have more to do than the provider lets through, with two workers each."""
    tpm = round(rpm * (mean_tokens() + MAX_TOKENS) * BINDING)
    behaviour = Behaviour(
        latency_ms=300, latency_sigma=0.5, burst_s=depth_s, headers=split.headers,
        limits=LimitTable(SimulatedLimit(rpm=rpm, tpm=tpm)), chars_per_token=float(CHARS_PER_TOKEN),
    )  # fmt: skip
    fleets = [
        Fleet(
            client, behaviour, pool=POOL, model=MODEL, max_tokens=MAX_TOKENS, workers=2, seed=n,
            limits=f"rpm={round(rpm * share)} tpm={round(tpm * share)}"
            + " burst_s=1" * split.is_shallow,
        )
        for n, (client, share) in enumerate(zip(clients, split.shares, strict=True))
    ]  # fmt: skip
    clock = _latest(fleets)
    engine = Engine(behaviour, clock, clock)
    whole_s = settle_s + seconds
    count = int(rpm / 60 * (whole_s + depth_s) * 1.1)
    for n, fleet in enumerate(fleets):
        fleet.engine = engine
        if n == 0 or split.both_work:
            fleet.submit(list(itertools.islice(jobs_of_all_lengths(), count)))
    for step in range(1, round(whole_s / STEP_S) + 1):
        for fleet in fleets:
            fleet.run_until(step * STEP_S)
    best = amounts(omniscient(fleets[0], jobs_of_all_lengths(), whole_s), settle_s, whole_s)
    each = tuple(
        amounts(fleet.sent, settle_s, whole_s).get("tokens", 0) / best["tokens"] for fleet in fleets
    )
    counted = [one for fleet in fleets for one in fleet.sent if one.at_s >= settle_s]
    refused = sum(not one.accepted for one in counted)
    return Shared(
        sum(each), (each[0], each[1]), 100 * refused / max(1, len(counted) - refused)
    )  # fmt: skip


def other_database(server: ValkeyServer) -> redis.Redis:
    """Return a client of database 1 of this server, which is empty now."""
    client = server.client(decode_responses=False)
    client.connection_pool.connection_kwargs["db"] = 1
    client.flushdb()
    return client


def _latest(fleets: list[Fleet]) -> Callable[[], float]:
    return lambda: max(fleet.now_s for fleet in fleets)
