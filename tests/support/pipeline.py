"""The pipeline of a worker over real servers, with a provider that plays a script."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from redis import Redis as Blocking
from redis.asyncio import Redis
from sqlalchemy import Engine, Table, insert, select

from headgate.shared.admission import limits as limits_in_force
from headgate.shared.admission.breakers import BreakerRules
from headgate.shared.admission.grant import Grant
from headgate.shared.broker.keys import Keys
from headgate.shared.cache.ttl import CachePolicy
from headgate.shared.catalog import catalog
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Result, Usage
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.celery.canvas import Canvas
from headgate.workers.clients.callbacks import Callbacks, CanvasSender
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.clients.in_flight import InFlight
from headgate.workers.clients.memory_bounds import MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.errors import AttemptError, ProviderFault
from headgate.workers.maintenance.estimates import EstimateUpkeep
from headgate.workers.pipeline.ask import Ask
from headgate.workers.pipeline.attempt import AttemptSteps
from headgate.workers.pipeline.job_run import NO_TICKET, Delivery
from headgate.workers.pipeline.outcome import Deferred, Ended, Outcome
from headgate.workers.pipeline.pipeline import Pipeline
from headgate.workers.policy.retry import RetryLimits
from headgate.workers.policy.retry_budget import RetryRules
from headgate.workers.provider import Answer, AnswerSink, Room
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
from tests.support.child import BUSY, wait_until
from tests.support.rig import envelope

MODELS = """
[models.alpha]
fallback = ["beta"]
[models.beta]
[models.lone]
[models.polite]
fallback = ["beta", "static:Please ask again later."]
[models.narrow]
[models.claude]
provider = "anthropic"
[pools."custom/narrow"]
rpm = 1
[pools."anthropic/claude"]
input_tpm = 600000
output_tpm = 600000
"""
FIGURES = """
class = "fast"
context_tokens = 1000
max_output_tokens = 100
capabilities = ["tools", "temperature"]
source = "made up for tests"
checked = 2026-11-20
"""
PRICES = {"input": "1", "output": "2"}
USAGE = Usage(input_tokens=10, output_tokens=20)
NEVER = BreakerRules(failures=0)
NO_BUDGET = RetryRules(share=10)
LIMITS = RetryLimits(3, 4, backoff_ms=5, backoff_max_ms=20)
COST_PICO_USD = 10 * 1_000_000 + 20 * 2_000_000  # of USAGE at PRICES


def catalog_in(folder: Path) -> catalog.Catalog:
    """Return a catalog with the models above, all at the same price."""
    text = ""
    for line in MODELS.strip().splitlines():
        text += line + "\n"
        if line.startswith("[models."):
            provider = "" if line == "[models.claude]" else 'provider = "custom"\n'
            text += provider + FIGURES
    for name in ("alpha", "beta", "lone", "polite", "narrow", "claude"):
        prices = "\n".join(f'{key} = "{value}"' for key, value in PRICES.items())
        text += f"[prices.{name}]\n{prices}\n"
    path = folder / "catalog.toml"
    path.write_text(text)
    return catalog.load(path)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the provider saw it."""

    request: Request
    model: str
    timeout_s: float
    idle_s: float | None
    streamed: bool


def answer(content: str = "four", usage: Usage = USAGE, *, counted: bool = True) -> Answer:
    """Return an answer of the provider."""
    message = {"id": "chatcmpl-1", "choices": [{"message": {"content": content}}], "new": [None]}
    return Answer(Reply(content, "stop", usage, request_id="req_1", message=message), {}, counted)


class Scripted:
    """A provider that plays its script, and answers `four` when that has ended."""

    def __init__(self) -> None:
        self.script: deque[Answer | Exception | asyncio.Event | str] = deque()
        self.asked: list[Asked] = []
        self.down: set[str] = set()
        self.cut = 0
        self.closed = 0

    def play(self, *steps: Answer | Exception | asyncio.Event | str) -> None:
        """Let the next requests meet these: an answer, an error, or silence until the event.

        A text is a piece that is streamed before the next of them.
        """
        self.script.extend(steps)

    async def ask(
        self,
        request: Request,
        *,
        model: str,
        max_output_tokens: int,
        timeout_s: float,
        idle_s: float | None = None,
        sink: AnswerSink | None = None,
        room: Room | None = None,
    ) -> Answer:
        """Do what the script says."""
        self.asked.append(Asked(request, model, timeout_s, idle_s, sink is not None))
        if model in self.down:
            raise ProviderFault("down")
        step = self.script.popleft() if self.script else answer()
        while isinstance(step, str):
            if sink is not None:
                sink.text(step)
            step = self.script.popleft() if self.script else answer()
        if isinstance(step, asyncio.Event):
            try:
                await step.wait()
            except asyncio.CancelledError:
                self.cut += 1
                raise
            return answer()
        if isinstance(step, Exception):
            raise step
        return step

    async def close(self) -> None:
        """Count the call."""
        self.closed += 1


class PlayedPipeline:
    """One worker's pipeline, and what it left on the record."""

    def __init__(
        self,
        engine: Engine,
        redis_url: str,
        models: catalog.Catalog,
        even: bool = False,
        rules: BreakerRules = NEVER,
        retries: RetryRules = NO_BUDGET,
        limits: RetryLimits = LIMITS,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.engine = engine
        self.redis_url = redis_url
        self.even = even
        self.provider = Scripted()
        self.record = GroupCommit(engine)
        self.batcher = RedisBatcher(Redis.from_url(redis_url))
        self.keyless = False
        self.has_opened = False
        self.stopped: str | None = None
        with Blocking.from_url(redis_url) as client:
            limits_in_force.write(client, Keys(), models, lambda _: 1)
        self.hold = Holds(self.batcher, Keys(), lambda _: ())
        self.breaker = Breaker(self.batcher, Keys(), rules, retries=retries, clock_ms=now_ms)
        self.call = Call(models, self._upstreams, timeout_s=30)
        cache = Cache(self.batcher, Keys(), policy=CachePolicy(ttl_s=60), clock_ms=now_ms)
        ledger = Ledger(self.record)
        steps = AttemptSteps(
            models, cache, self.hold, self.breaker, ledger, self.call,
            deltas=DeltaWriter(self.batcher, Keys(), gather_s=0.001),
            estimates=EstimateUpkeep(self.batcher, Keys()), clock_ms=clock_ms,
            in_flight=InFlight(1 << 28),
        )  # fmt: skip
        publish = Publish(self.batcher, Keys(), ttl_s=60, bounds=MemoryBounds())
        self.pipeline = Pipeline(
            models, Claims(self.record, "worker"), cache,
            SingleFlight(self.batcher, Keys(), even=even),
            Ask(models, steps, self.breaker, limits, clock_ms=clock_ms, chance=lambda: 0.5),
            self.hold, ledger, Conclude(), self.record,
            publish=publish, callbacks=Callbacks(self.record, publish.command, self._canvas),
            max_deliveries=3, clock_ms=clock_ms,
        )  # fmt: skip

    def _canvas(self) -> CanvasSender:
        settings = Settings(redis_url=self.redis_url)
        return Canvas(Servers(settings, self.redis_url, ""))

    def _upstreams(self, _provider: object) -> list[Upstream]:
        self.has_opened = True  # an SDK is imported here, which takes its time
        return [] if self.keyless else [Upstream(self.provider, "key0")]

    async def run(
        self,
        job: Envelope,
        *,
        crashes: int = 0,
        revoked: bool = False,
        refusal: InvalidRequest | None = None,
        grant: Grant = NO_TICKET,
    ) -> Outcome:
        """How the run of one delivery of the job ends."""
        delivery = Delivery(job, crashes, lambda: self.stopped, revoked, refusal, grant)
        return await self.pipeline.run(delivery)

    async def result(self, job: Envelope, **others: Any) -> Result:
        """Run the job until it has ended, also after waits; return its result."""
        outcome = await self.run(job, **others)
        until = time.monotonic() + 20 * BUSY
        while isinstance(outcome, Deferred) and not outcome.wait_ms and time.monotonic() < until:
            await asyncio.sleep(0.05)
            outcome = await self.run(job, **others)
        assert isinstance(outcome, Ended), outcome
        return outcome.result

    def open_gates(self) -> None:
        """No pool is shut any more, as after an operator's word."""
        with Blocking.from_url(self.redis_url) as client:
            if gates := list(client.scan_iter("headgate:gate:*")):
                client.delete(*gates)

    async def start(self, job: Envelope) -> "asyncio.Task[Outcome]":
        """Start a run, and return it once it has reached the silent provider."""
        before = len(self.provider.asked)
        task = asyncio.ensure_future(self.run(job))
        await asyncio.to_thread(
            wait_until, lambda: task.done() or len(self.provider.asked) > before, 10, "the request"
        )
        return task

    async def stop(self, task: "asyncio.Task[Outcome]", reason: str) -> Outcome:
        """How a run ends that is stopped for this reason, as the pool does it."""
        self.stopped = reason
        task.cancel()
        return await asyncio.wait_for(task, 10 * BUSY)

    def rows(self, table: Table, job: Envelope) -> list[Any]:
        """Return the rows of the job in this table, in order."""
        key = table.c.id if table is jobs else table.c.job_id
        query = select(table).where(key == job.id).order_by(*table.primary_key)
        with self.engine.connect() as connection:
            return list(connection.execute(query))

    def row(self, job: Envelope) -> Any:
        """Return the row of the job."""
        [row] = self.rows(jobs, job)
        return row

    def audited(self, job: Envelope) -> Any:
        """Return the one audit line of the job."""
        [row] = self.rows(audit, job)
        return row

    def attempts(self, job: Envelope) -> list[tuple[str, str, str | None]]:
        """Model, state and code of each attempt."""
        return [(row.model, row.state, row.code) for row in self.rows(attempts, job)]

    async def crash(self, job: Envelope, *models: str) -> None:
        """Claim the job as a worker that dies with a request open to each of these models."""
        for n, model in enumerate(models, len(self.rows(attempts, job)) + 1):
            claim: Any = await self.pipeline.claims.take(job)
            with self.engine.begin() as connection:
                connection.execute(
                    insert(attempts).values(
                        job_id=job.id, fence=claim.fence, n=n, model=model, provider="custom",
                        state="open", started_at_ms=now_ms(), waited_ms=0,
                    )
                )  # fmt: skip

    def celery(self, job: Envelope) -> "AsyncResult[Any]":
        """Return the result as any Celery program reads it."""
        app = Celery("other", backend=self.redis_url, set_as_current=False)
        return AsyncResult(job.id, app=app)

    async def close(self) -> None:
        """All is written and closed."""
        self.hold.close()
        self.breaker.close()
        self.pipeline.cache.close()
        await self.call.close()
        await self.pipeline.callbacks.close()
        await self.record.close()
        await self.batcher.close()


@asynccontextmanager
async def played_pipeline(
    database_url: str, redis_url: str, folder: Path, **changed: Any
) -> AsyncIterator[PlayedPipeline]:
    """Open a pipeline on a database with its tables; close it afterwards."""
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    played = PlayedPipeline(engine, redis_url, catalog_in(folder), **changed)
    try:
        yield played
    finally:
        await played.close()


def job_for(model: str = "alpha", **fields: Any) -> Envelope:
    """Return a job for a model of the tests."""
    return envelope(on_model=model, **fields)


def fault(kind: type[AttemptError], message: str = "no", **facts: Any) -> AttemptError:
    """Return an error of the provider."""
    return kind(message, **facts)
