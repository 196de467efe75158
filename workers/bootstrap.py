"""The composition root: builds the parts of a worker from its settings, once per process."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.admission import tiers
from headgate.shared.admission.breakers import BreakerRules as BreakerRules
from headgate.shared.admission.tiers import TierOf
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import all_queues
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog import access, catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import ProviderConfig as ProviderEntry
from headgate.shared.cost import tokens
from headgate.shared.database.webhooks import all_subscriptions
from headgate.shared.errors import SettingError
from headgate.shared.named_function import named_function
from headgate.shared.routing.choose import without_key
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.clients.callbacks import Callbacks, CanvasSender
from headgate.workers.clients.clock import Clock
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.clients.in_flight import InFlight
from headgate.workers.clients.memory_bounds import MB, MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.alerts import Alerts
from headgate.workers.maintenance.budgets import BudgetUpkeep
from headgate.workers.maintenance.callbacks import CallbackUpkeep
from headgate.workers.maintenance.catalog import CatalogReload
from headgate.workers.maintenance.census import holds_turn
from headgate.workers.maintenance.database_check import DatabaseCheck
from headgate.workers.maintenance.estimates import EstimateUpkeep
from headgate.workers.maintenance.memory import MemoryWatch
from headgate.workers.maintenance.prune import Prune
from headgate.workers.maintenance.prune_record import RecordPrune
from headgate.workers.maintenance.queue_watch import QueueWatch
from headgate.workers.maintenance.recover import Recover
from headgate.workers.maintenance.revoke import Revoke
from headgate.workers.maintenance.usage_rollup import UsageRollup
from headgate.workers.maintenance.webhooks.sender import sender
from headgate.workers.pipeline.ask import Ask
from headgate.workers.pipeline.attempt import AttemptSteps
from headgate.workers.pipeline.pipeline import Pipeline
from headgate.workers.policy.retry import RetryLimits
from headgate.workers.policy.retry_budget import RetryRules
from headgate.workers.provider import Provider
from headgate.workers.providers.rate_headers import seen
from headgate.workers.stages.breaker import Breaker
from headgate.workers.stages.cache import Cache
from headgate.workers.stages.call import Call, Upstream
from headgate.workers.stages.claim import Claims
from headgate.workers.stages.conclude import Conclude
from headgate.workers.stages.hold import Holds
from headgate.workers.stages.ledger import Ledger
from headgate.workers.stages.publish import Publish
from headgate.workers.stages.single_flight import SingleFlight
from headgate.workers.stages.stream import DeltaWriter

log = logging.getLogger("headgate.bootstrap")

COLLECT_AFTER = 50_000
"""How many new objects the garbage collection waits for; some 10 MB if all of them were garbage."""


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of a worker that live as long as its process, on the loop that runs the jobs.

    `background` are the tasks that run beside the jobs. `tiers_of` finds the source of tiers for a
    catalog; `tier_of` is the source for the catalog in force.
    """

    settings: Settings
    catalog: Catalog
    pipeline: Pipeline
    record: GroupCommit
    batcher: RedisBatcher
    call: Call
    reload: CatalogReload
    check: DatabaseCheck
    background: tuple[asyncio.Task[None], ...]
    tiers_of: Callable[[Catalog], TierOf]
    tier_of: TierOf
    revoke: Revoke

    async def close(self) -> None:
        """Stop the background tasks, and finish what is on its way to database and Redis."""
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        self.pipeline.ask.breaker.close()
        await self.call.close()
        await self.pipeline.callbacks.close()
        await self.record.close()
        await self.check.close()
        # If Redis is away, only the estimates of the last two seconds are lost.
        with suppress(TimeoutError, RedisError):
            flushing = self.pipeline.ask.steps.estimates.flush()
            await asyncio.wait_for(asyncio.gather(flushing, self.reload.forget()), FLUSH_WITHIN_S)
        await self.batcher.close()


FLUSH_WITHIN_S = 0.5
"""How long a stop waits for the last estimates to be shared. `pool.RETURN_S` bounds the stop."""

REDIS_WITHIN_S = 2.0
"""How long a new worker waits for the server's time, and for its limits to be written."""


async def open_parts(
    in_force: Settings, servers: Servers, owner: str, in_flight: InFlight | None = None,
    *, end: Callable[[], object] | None = None,
) -> WorkerParts:  # fmt: skip
    """Open a worker's parts on the running loop. `owner` is the worker's name in claims.

    `in_flight` counts what the worker holds of messages; answers are counted in it, too.
    `end` ends the worker if its database is lost. Raises Unreachable if the database does not
    answer, and SettingError if Redis belongs to another one. Redis may be away.
    """
    await asyncio.to_thread(servers.check_database)
    models = catalog.load(in_force.catalog)
    await asyncio.to_thread(tokens.load_vocabularies, models.models.values())
    engine = servers.engine()
    record = GroupCommit(engine)
    batcher = RedisBatcher(servers.async_redis_client(timeout_s=None))
    clock = await _set_clock(batcher)
    bounds = await _set_bounds(in_force, batcher)
    call = _call(in_force, models)
    estimates = EstimateUpkeep(batcher, servers.keys, miss=in_force.under_reserve)
    pipeline = _pipeline(
        servers, models, record, batcher, clock, bounds, call, estimates,
        in_flight or InFlight(in_force.in_flight_mb * MB), owner=owner,
    )  # fmt: skip
    period_s = in_force.sweep_s
    check = DatabaseCheck(servers, engine, batcher, owner=owner, period_s=period_s, end=end)
    with suppress(TimeoutError, RedisError, DBAPIError):
        await asyncio.wait_for(check.begin(), REDIS_WITHIN_S)
    background = _background(
        in_force, models, servers, engine, batcher, clock, bounds, estimates, pipeline, owner,
    )  # fmt: skip
    background += (asyncio.create_task(check.run(), name="database check"),)
    reload = await _write_limits(in_force, models, servers, batcher, owner, clock)
    tiers_of = partial(_tiers, in_force, engine)
    tier_of = await asyncio.to_thread(tiers_of, models)
    pipeline.webhooks.subscribed = await asyncio.to_thread(all_subscriptions, engine)
    return WorkerParts(
        in_force, models, pipeline, record, batcher, call, reload, check, background, tiers_of,
        tier_of, Revoke(servers, engine, in_force.result_ttl_s, clock.now_ms),
    )  # fmt: skip


def _call(in_force: Settings, models: Catalog) -> Call:
    return Call(
        models, partial(_upstreams, in_force), timeout_s=in_force.timeout_s,
        keys_of=partial(access.keys_of, in_force), moderator=_moderator(in_force),
    )  # fmt: skip


def _moderator(in_force: Settings) -> Upstream | None:
    """Return the operator's own function for moderations; raise SettingError for a wrong one."""
    if in_force.moderation is None:
        return None
    from headgate.workers.providers.moderation.function import FunctionModerator

    function = named_function("HEADGATE_MODERATION", in_force.moderation, "a list of inputs")
    return Upstream(FunctionModerator(function), "")


async def _set_clock(batcher: RedisBatcher) -> Clock:
    """Return a clock set by the server, or by this machine if Redis does not answer in time."""
    clock = Clock(batcher)
    with suppress(TimeoutError):
        await asyncio.wait_for(clock.ask(), REDIS_WITHIN_S)
    return clock


async def _set_bounds(in_force: Settings, batcher: RedisBatcher) -> MemoryBounds:
    """Return the bounds of results and cache, fitted to Redis if it answers in time."""
    bounds = MemoryBounds(results_mb=in_force.results_mb, cache_mb=in_force.cache_mb)
    with suppress(TimeoutError):
        await asyncio.wait_for(bounds.ask(batcher), REDIS_WITHIN_S)
    return bounds


async def _write_limits(
    in_force: Settings, models: Catalog, servers: Servers, batcher: RedisBatcher, owner: str,
    clock: Clock,
) -> CatalogReload:  # fmt: skip
    """Write the catalog's limits to Redis if it answers in time; `CatalogReload` tries again."""
    reload = CatalogReload(
        servers, batcher, in_force.catalog, partial(_key_count, in_force), owner=owner,
        clock_ms=clock.now_ms,
    )  # fmt: skip
    with suppress(TimeoutError):
        await asyncio.wait_for(reload.begin(models), REDIS_WITHIN_S)
    return reload


def _background(
    in_force: Settings, models: Catalog, servers: Servers, engine: Engine, batcher: RedisBatcher,
    clock: Clock, bounds: MemoryBounds, estimates: EstimateUpkeep, pipeline: Pipeline, owner: str,
) -> tuple[asyncio.Task[None], ...]:  # fmt: skip
    """Start the tasks that run beside the jobs: maintenance, pruning, clock, estimates, budgets."""
    keys, queues = servers.keys, all_queues(models.classes)
    prune = Prune(
        batcher, keys, queues=queues, most_letters=in_force.dead_letters,
        most_bytes=in_force.dead_mb * MB, bounds=bounds,
    )  # fmt: skip
    budgets = BudgetUpkeep(batcher, keys, engine, models, clock.now_ms)
    url = None if in_force.alert_url is None else str(in_force.alert_url)
    recover = Recover(
        servers, engine, batcher, owner=owner, period_s=in_force.sweep_s,
        result_ttl_s=in_force.result_ttl_s, prune=prune, budgets=budgets,
        alerts=Alerts(batcher, keys, url, owner), rollup=UsageRollup(engine, clock.now_ms),
        memory=MemoryWatch(batcher, keys, queues), clock_ms=clock.now_ms,
        callbacks=CallbackUpkeep(engine, pipeline.callbacks, clock.now_ms),
    )  # fmt: skip
    has_turn = partial(holds_turn, batcher, keys, owner)
    webhooks = sender(in_force, engine, pipeline.record, pipeline.webhooks, has_turn, clock.now_ms)
    prune_record = RecordPrune(
        batcher, keys, engine, owner, clock.now_ms, in_force.keep_days, in_force.keep_audit_days
    )
    return (
        asyncio.create_task(recover.run(), name="recover"),
        asyncio.create_task(prune_record.keep(), name="prune"),
        asyncio.create_task(clock.keep(), name="clock"),
        asyncio.create_task(bounds.keep(batcher), name="memory bounds"),
        asyncio.create_task(estimates.keep(), name="estimates"),
        asyncio.create_task(budgets.keep(), name="budgets"),
        asyncio.create_task(webhooks.run(), name="webhooks"),
        asyncio.create_task(QueueWatch(batcher, keys, queues, owner).keep(), name="queues"),
    )


def _pipeline(
    servers: Servers, models: Catalog, record: GroupCommit, batcher: RedisBatcher,
    clock: Clock, bounds: MemoryBounds, call: Call, estimates: EstimateUpkeep,
    in_flight: InFlight, *, owner: str,
) -> Pipeline:  # fmt: skip
    """Build the pipeline; it opens nothing."""
    in_force, keys = servers.settings, servers.keys
    cache_policy = CachePolicy(
        CacheRuleIndex.of(models.cache.rules), in_force.cache_ttl_s, in_force.cache_temperature
    )
    cache = Cache(batcher, keys, policy=cache_policy, clock_ms=clock.now_ms)
    hold = _holds(in_force, batcher, keys)
    breaker = Breaker(
        batcher, keys, _breaker_rules(in_force),
        retries=RetryRules(in_force.retry_share, in_force.retry_per_s), clock_ms=clock.now_ms,
    )  # fmt: skip
    ledger = Ledger(record)
    steps = AttemptSteps(
        catalog=models, cache=cache, hold=hold, breaker=breaker, ledger=ledger, call=call,
        deltas=DeltaWriter(batcher, keys), estimates=estimates, clock_ms=clock.now_ms,
        in_flight=in_flight,
    )  # fmt: skip
    limits = _retry_limits(in_force)
    publish = Publish(batcher, keys, ttl_s=in_force.result_ttl_s, bounds=bounds)
    canvas = partial(_canvas, servers)
    return Pipeline(
        catalog=models,
        claims=Claims(record, owner, clock.now_ms),
        cache=cache,
        single_flight=SingleFlight(batcher, keys, even=in_force.share_cost == "even"),
        ask=Ask(models, steps, breaker, limits, clock_ms=clock.now_ms, chance=random.random),
        hold=hold,
        ledger=ledger,
        conclude=Conclude(),
        record=record,
        publish=publish,
        callbacks=Callbacks(record, publish.command, canvas, lease_s=in_force.lease_s),
        max_deliveries=in_force.max_deliveries,
        clock_ms=clock.now_ms,
    )


def _holds(in_force: Settings, batcher: RedisBatcher, keys: Keys) -> Holds:
    return Holds(
        batcher, keys, lambda headers: seen(headers, time.time()),
        retry_after_max_ms=in_force.retry_after_max_s * 1000,
    )  # fmt: skip


def _canvas(servers: Servers) -> CanvasSender:
    """Open Celery's canvas. Only workers with callbacks need it."""
    from headgate.workers.celery.canvas import Canvas

    return Canvas(servers)


def _retry_limits(in_force: Settings) -> RetryLimits:
    return RetryLimits(
        in_force.max_attempts, in_force.max_attempts_per_job, in_force.backoff_s * 1000,
        in_force.backoff_max_s * 1000, in_force.retry_after_max_s * 1000,
    )  # fmt: skip


def _breaker_rules(in_force: Settings) -> BreakerRules:
    return BreakerRules(
        in_force.breaker_failures, in_force.breaker_share, in_force.breaker_open_s,
        in_force.healthy_s,
    )  # fmt: skip


def _tiers(in_force: Settings, engine: Engine, models: Catalog) -> TierOf:
    """Return the source of tiers for jobs whose producer has not asked for the tier."""
    try:
        return tiers.source(in_force.tiers, models, lambda: engine)
    except SettingError as error:  # only producers must have it; stock producers' jobs need it here
        log.warning("%s; jobs of stock producers get the tiers of the catalog", error)
        return tiers.by_catalog(models)


def keyed(in_force: Settings, models: Catalog) -> list[str]:
    """Return the providers that this worker has a key of."""
    return [name for name, one in models.providers.items() if _key_count(in_force, one)]


def keyless(in_force: Settings, models: Catalog) -> frozenset[str]:
    """Return the providers that this worker has no key of; none if it has no key at all."""
    return without_key({name: _key_count(in_force, one) for name, one in models.providers.items()})


def _key_count(in_force: Settings, provider: ProviderEntry) -> int:
    """Return how many keys of the provider this worker can use."""
    try:
        return len(access.keys_of(in_force, provider))
    except SettingError:  # named by a new catalog; its jobs fail with the reason
        return 0


def _upstreams(in_force: Settings, provider: ProviderEntry) -> list[Upstream]:
    """Open the provider's dialect once for each of its keys; not at all if no key is set.

    This imports the vendor's SDK, so a worker does without it before its first call.
    """
    make = _anthropic if provider.dialect == "anthropic" else _openai
    base_url = access.base_url_of(in_force, provider)
    upstreams = [
        Upstream(make(in_force, provider, key, base_url), f"key{n}", access.digest_of(key))
        for n, key in enumerate(access.keys_of(in_force, provider))
    ]
    collect_rarely()
    return upstreams


def collect_rarely() -> None:
    """Let the garbage collection look at few objects, and seldom.

    What exists now never dies, the SDKs above all: it is frozen. A job leaves no garbage in cycles
    (measured: 1 object in 20 jobs), but the default looks at all jobs in flight after each 700
    objects. That was a fifth of a worker's CPU at 500 jobs in flight.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _openai(
    in_force: Settings, provider: ProviderEntry, key: str, base_url: str | None
) -> Provider:
    from headgate.workers.providers.openai import OpenAIProvider

    vendor = provider.name == "openai"
    return OpenAIProvider(
        name=provider.name, api_key=key, base_url=base_url,
        organization=in_force.openai_org_id if vendor else None,
        project=in_force.openai_project_id if vendor else None,
        stream_options=provider.stream_usage in (None, "option"),
        responses=provider.responses,
        connections=0,  # no limit: the number of jobs may change at run time
        most_bytes=in_force.response_mb * MB,
    )  # fmt: skip


def _anthropic(
    in_force: Settings, provider: ProviderEntry, key: str, base_url: str | None
) -> Provider:
    from headgate.workers.providers.anthropic import AnthropicProvider

    return AnthropicProvider(
        name=provider.name, api_key=key, base_url=base_url, connections=0,
        most_bytes=in_force.response_mb * MB,
    )  # fmt: skip
