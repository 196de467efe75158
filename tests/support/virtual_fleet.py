"""A fleet of workers and a provider on a clock that is only computed: minutes pass in seconds.

The scripts are the real ones, on a real server; only `TIME` is answered by this clock. The provider
is the simulator's engine without its socket. What a worker does between the two is played here: it
fetches, sends a little later, reports headers every tenth of a second, and puts refused jobs off.
So the figures do not depend on what else the machine does.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import orjson
import redis

from headgate.shared.admission.grant import Held, decode
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.jobs import Lease
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command
from headgate.workers.providers import rate_headers
from headgate.workers.simulator.behaviour import Act, Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.forms import CHAT, MESSAGES
from headgate.workers.simulator.limits import (
    LimitTable,
    SimulatedCharge,
    SimulatedLimit,
    SimulatedPools,
)
from headgate.workers.simulator.rate_headers import HeaderStyle
from headgate.workers.stages import hold
from tests.bench.governor.prompts import CHARS_PER_TOKEN, lengths, mean_tokens
from tests.bench.governor.vendors import BINDING

BATCH, PAUSE_S, IDLE_S, OBSERVE_S = 64, 0.08, 1.0, 0.1
"""As in `workers/delivery/fetcher.py` and `workers/stages/hold.py`."""

ROUND_TRIP_S, CPU_S = 0.001, 0.0015
"""How long a call of a script takes, and how long a worker is busy with one job."""

LAG_S, LAG_SIGMA = 0.01, 0.8
"""From the worker to the provider: lognormal."""

QUEUE = "headgate.standard.fast"
BEGAN_S = 1_800_000_000.25
BACKOFF_S = 0.5
FETCH_SHA = script.compose("fetch", (), (), bool).sha
OBSERVE_SHA = script.compose("limits_observe", (), (), bool).sha


@dataclass(frozen=True, slots=True)
class Job:
    """What a job asks: the tokens that its provider counts, and our estimate of its input."""

    input_tokens: int
    estimated: int


@dataclass(frozen=True, slots=True)
class Sent:
    """One call as the provider met it. `at_s` from the beginning."""

    at_s: float
    accepted: bool
    charges: tuple[SimulatedCharge, ...]


@dataclass(slots=True)
class FleetWorker:
    """One worker: its slots, its acks, and when its process is free again."""

    name: str
    slots: int
    is_older: bool = False
    held: int = 0
    trips: int = 0
    free_s: float = 0.0
    waits_since: int = 0
    idle: bool = False
    hears_bell: bool = True
    acked: list[Lease] = field(default_factory=list)
    seen: tuple[Held, Mapping[str, str]] | None = None
    reports: bool = False


class Fleet:
    """Workers, their broker and one provider.

    `lag`: times the usual way to the provider. `phase_s`: so long after the start of a window the
    run begins. `older`: the scripts of the release before, by name, which every other worker uses.
    """

    def __init__(
        self, client: redis.Redis, behaviour: Behaviour, *, pool: str, model: str, limits: str,
        max_tokens: int, workers: int = 4, slots: int = 500, lag: float = 1.0, seed: int = 3,
        phase_s: float = 0.0, older: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.client, self.keys, self.pool, self.model = client, Keys(), pool, model
        self.now_s = BEGAN_S + phase_s
        self.began_s = self.now_s
        self.engine = Engine(behaviour, lambda: self.now_s, lambda: self.now_s)
        self.path = MESSAGES if pool.startswith("anthropic") else CHAT
        self.max_tokens, self.lag = max_tokens, lag
        self.workers = [FleetWorker(f"w{n}", slots, is_older=n % 2 == 1) for n in range(workers)]
        self.sent: list[Sent] = []
        self.ended: dict[str, float] = {}
        self.submitted: dict[str, float] = {}
        self._jobs: dict[str, Job] = {}
        self._chance = random.Random(seed)  # noqa: S311  repeatable, not secret
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._texts: dict[str, str] = {}
        self._older = {
            script.compose(name, (), (), bool).sha: text for name, text in (older or {}).items()
        }
        client.hset(self.keys.limits(), f"pool/{pool}", limits)
        self._run(self._pulse())

    # ---- what a test does

    def submit(self, jobs: list[Job], *, priority: str = "standard") -> list[str]:
        """Put these jobs into the queue."""
        now_ms = int(self.now_s * 1000)
        pairs, ids = [], []
        for job in jobs:
            job_id = f"j{len(self._jobs)}"
            self._jobs[job_id] = job
            self.submitted[job_id] = self.now_s
            ids.append(job_id)
            text = f'{{"hg":"{job_id}","at":"{self._ticket(job, now_ms).encode()}","body":"x"}}'
            pairs.append((job_id, text.encode()))
        for first in range(0, len(pairs), 500):
            self._run(broker_jobs.send(self.keys, QUEUE, pairs[first : first + 500]))
        for worker in self.workers:
            if worker.idle or not worker.trips:
                self._at(0.0, self._fetching(worker))
        return ids

    def run_until(self, end_s: float) -> None:
        """Let time pass up to so many seconds from the beginning."""
        end_s += self.began_s
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        self.now_s = end_s

    def bucket(self) -> dict[str, float]:
        """The bucket of the pool as it is stored."""
        found: Any = self.client.hgetall(self.keys.bucket(f"pool/{self.pool}", "key0"))
        return {name.decode(): float(amount) for name, amount in found.items()}

    def charges(self, job: Job, output_tokens: int) -> tuple[SimulatedCharge, ...]:
        """What the provider counts of a job."""
        one = SimulatedCharge("requests", 1)
        if self.path == CHAT:
            return one, SimulatedCharge("tokens", job.input_tokens + output_tokens)
        read = SimulatedCharge("input-tokens", job.input_tokens)
        return one, read, SimulatedCharge("output-tokens", output_tokens)

    # ---- what workers do

    def _ticket(self, job: Job, now_ms: int) -> Ticket:
        return Ticket(
            pool=self.pool, model=self.model, priority="standard", tenant="acme", user="",
            tier="", rule="a" if self.path == MESSAGES else "o", input_tokens=job.estimated,
            output_tokens=self.max_tokens, arrival_ms=now_ms, deadline_ms=now_ms + 86_400_000,
        )  # fmt: skip

    def _at(self, after_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + after_s, next(self._count), act))

    def _fetching(self, worker: FleetWorker) -> Callable[[], None]:
        """A fetch that is left out if the worker has fetched since."""
        worker.waits_since += 1
        turn = worker.waits_since
        worker.idle = False

        def act() -> None:
            if worker.waits_since == turn:
                self._fetch(worker)

        return act

    def _fetch(self, worker: FleetWorker) -> None:
        want = max(0, min(BATCH, worker.slots - worker.held + len(worker.acked)))
        acked, worker.acked = worker.acked[:512], worker.acked[512:]
        worker.trips += 1
        owner = f"{worker.name}#{worker.trips}"
        fetched = self._run(
            broker_jobs.fetch(
                self.keys, owner=owner, lease_ms=600_000, want=want, queues=[QUEUE], acked=acked
            ),
            worker,
        )
        worker.held += len(fetched.taken) - len(acked)
        for job in fetched.taken:
            grant = decode(job.grant)
            assert isinstance(grant, Held), grant
            worker.free_s = max(worker.free_s, self.now_s) + CPU_S
            lag_s = LAG_S * self.lag * math.exp(LAG_SIGMA * self._chance.gauss(0, 1))
            leaves_s = worker.free_s - self.now_s + lag_s
            self._at(leaves_s, self._call(worker, Lease(job.id, owner), grant))
        if len(fetched.taken) < want and not fetched.more:
            idle_s = IDLE_S
            if fetched.next_due_ms is not None:
                pause_s = PAUSE_S * self._chance.uniform(0.5, 1.5)
                idle_s = min(IDLE_S, max(fetched.next_due_ms / 1000 + 0.001, pause_s))
            worker.hears_bell = idle_s >= 2 * PAUSE_S
            self._at(idle_s, self._fetching(worker))
            worker.idle = True
        elif want or worker.acked:
            busy_s = max(0.0, worker.free_s - self.now_s)
            self._at(ROUND_TRIP_S + busy_s, self._fetching(worker))
        else:
            worker.hears_bell, worker.idle = True, True

    def _ring(self, worker: FleetWorker) -> None:
        if worker.idle and worker.hears_bell:
            self._at(ROUND_TRIP_S, self._fetching(worker))

    def _call(self, worker: FleetWorker, lease: Lease, grant: Held) -> Callable[[], None]:
        def act() -> None:
            job = self._jobs[lease.id]
            text = "a" * (job.input_tokens * int(self.engine.behaviour.chars_per_token))
            body = {
                "model": self.model, "max_tokens": self.max_tokens,
                "messages": [{"role": "user", "content": text}],
            }  # fmt: skip
            before = self.engine.stats.accepted
            answer = self.engine.decide(self.path, "key", orjson.dumps(body))
            accepted = self.engine.stats.accepted > before
            output = self.max_tokens
            if answer.bill is not None and self.path == MESSAGES:
                output = answer.bill.usage.output_tokens
            charges = self.charges(job, output)
            self.sent.append(Sent(self.now_s - self.began_s, accepted, charges))
            delay_s = answer.delay_s + 0.002
            self._at(delay_s, lambda: self._answered(worker, lease, grant, answer))

        return act

    def _answered(self, worker: FleetWorker, lease: Lease, grant: Held, answer: Act) -> None:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        headers["date"] = formatdate(math.floor(self.now_s), usegmt=True)
        if answer.status == 200:
            self.ended[lease.id] = self.now_s
            if worker.seen is None or worker.seen[0].granted_at_ms <= grant.granted_at_ms:
                worker.seen = (grant, headers)
            if not worker.reports:
                worker.reports = True
                self._at(OBSERVE_S, lambda: self._report(worker))
            if grant.settles and answer.bill is not None:
                usage = answer.bill.usage
                used = (usage.input_tokens, usage.output_tokens)
                self._run(hold.settle(self.keys, job_id=lease.id, grant=grant.text, used=used))
            worker.acked.append(lease)
            self._ring(worker)
            return
        self._refused(worker, lease, grant, answer, headers)

    def _refused(
        self, worker: FleetWorker, lease: Lease, grant: Held, answer: Act,
        headers: Mapping[str, str],
    ) -> None:  # fmt: skip
        wait_ms = -1
        if "retry-after-ms" in headers:
            wait_ms = int(headers["retry-after-ms"])
        elif "retry-after" in headers:
            wait_ms = int(headers["retry-after"]) * 1000
        if grant.settles:
            self._run(hold.settle(self.keys, job_id=lease.id, grant=grant.text, used=(0, 0)))
        kind = "slow" if answer.refusal == "rate_limit_ramp" else "limited"
        self._observe(worker, grant, headers, kind, wait_ms)
        job = self._jobs[lease.id]
        again = int(max(0, wait_ms) + self._chance.random() * BACKOFF_S * 1000)
        ticket = self._ticket(job, int(self.submitted[lease.id] * 1000)).encode()
        self._run(broker_jobs.defer(self.keys, lease=lease, wait_ms=again, ticket=ticket))
        worker.held -= 1
        self._ring(worker)

    def _report(self, worker: FleetWorker) -> None:
        worker.reports = False
        seen, worker.seen = worker.seen, None
        if seen is not None:
            self._observe(worker, *seen, "ok", -1)

    def _observe(
        self, worker: FleetWorker, grant: Held, headers: Mapping[str, str], kind: str, wait_ms: int
    ) -> None:
        seen = [
            replace(one, total=grant.totals.get(one.measure))
            for one in rate_headers.seen(headers, self.now_s)
        ]
        self._run(
            hold.observe(
                self.keys, pool=grant.pool, key=grant.key, kind=kind, wait_ms=wait_ms,
                granted_at_ms=grant.granted_at_ms, seen=seen, tokens=grant.tokens,
            ),
            worker,
        )  # fmt: skip

    # ---- scripts on this clock

    def _pulse(self) -> Command[Any]:
        self.client.hset(self.keys.pulse(), mapping={"last": int(self.now_s * 1000), "grace": 0})
        return broker_jobs.fetch(self.keys, owner="first", lease_ms=1000, want=0, queues=[])

    def _run(self, command: Command[Any], worker: FleetWorker | None = None) -> Any:
        text, args = command.text, command.args
        is_older = worker is not None and worker.is_older and command.sha in self._older
        is_older_fetch = is_older and command.sha == FETCH_SHA
        if is_older:
            text = self._older[command.sha]
            if command.sha == OBSERVE_SHA:
                args = (*args[:6], *(w for n, w in enumerate(args[7:]) if n % 9 < 5))
            elif is_older_fetch:
                args = (*args[:7], *args[8:])  # it knows no sub-lists
        seconds = math.floor(self.now_s)
        with self.client.pipeline(transaction=False) as pipe:
            pipe.hset("virtual", mapping={"s": seconds, "us": int((self.now_s - seconds) * 1e6)})
            pipe.evalsha(self._on_this_clock(text), len(command.keys), *command.keys, *args)
            pipe.lpop(self.keys.wake(QUEUE))
            _, reply, wake = pipe.execute()
        if is_older_fetch:
            reply = [*reply[:5], 0, *reply[5:]]
        if wake is not None:
            # The wake list is read with BLPOP: one of those who wait hears of it.
            idle = [one for one in self.workers if one.idle]
            if idle:
                self._at(ROUND_TRIP_S, self._fetching(self._chance.choice(idle)))
        return command.read(reply)

    def _on_this_clock(self, text: str) -> str:
        """The name under which the server knows a script whose time is this clock's."""
        if text not in self._texts:
            changed = text.replace(
                "redis.call('TIME')", "redis.call('HMGET', 'virtual', 's', 'us')"
            )
            self.client.script_load(changed)
            name = hashlib.sha1(changed.encode(), usedforsecurity=False).hexdigest()
            self._texts[text] = name
        return self._texts[text]


def omniscient(fleet: Fleet, jobs: Iterator[Job], until_s: float) -> list[Sent]:
    """The calls of a sender that knows the buckets, sends in order, and never too early."""
    behaviour = fleet.engine.behaviour
    pools = SimulatedPools(behaviour.limits, behaviour.burst_s, fixed=behaviour.fixed_windows)
    now_s, end_s = fleet.began_s, fleet.began_s + until_s
    split = fleet.path == MESSAGES
    sent: list[Sent] = []
    for job in jobs:
        charges = fleet.charges(job, fleet.max_tokens)
        while True:
            refusal = pools.of(fleet.model, split, "", now_s).take(now_s, charges, False)
            if refusal is None:
                break
            now_s += (refusal.wait_s or 0.0) + 1e-6
            if now_s >= end_s:
                return sent
        sent.append(Sent(now_s - fleet.began_s, True, charges))
    return sent


def amounts(sent: list[Sent], first_s: float, last_s: float) -> dict[str, int]:
    """What was let through between two moments, by the kinds of the provider's buckets."""
    found: dict[str, int] = {}
    for one in sent:
        if one.accepted and first_s <= one.at_s < last_s:
            for charge in one.charges:
                found[charge.kind] = found.get(charge.kind, 0) + charge.amount
    return found


# ---- one measurement


@dataclass(frozen=True, slots=True)
class Provider:
    """What a measured provider enforces: buckets of `depth_s` of its rate, and what it tells."""

    dialect: str
    depth_s: float
    fixed: bool = False
    headers: HeaderStyle = "bucket"
    rpm: int = 1200


@dataclass(frozen=True, slots=True)
class Measured:
    """`share`: of what an omniscient sender gets through. `before`: refusals while settling."""

    share: float
    refused_per_100: float
    before: int


def measured(
    client: redis.Redis, provider: Provider, *, settle_s: float, seconds: float,
    older: Mapping[str, str] | None = None,
) -> Measured:  # fmt: skip
    """Let four workers with more to do than the provider lets through run so long."""
    openai = provider.dialect == "openai"
    rpm, mean, max_tokens = provider.rpm, mean_tokens(), 40 if openai else 12
    if openai:
        limit = SimulatedLimit(rpm=rpm, tpm=round(rpm * (mean + max_tokens) * BINDING))
        texts, binding = f"rpm={rpm} tpm={limit.tpm}", "tokens"
    else:
        input_tpm, output_tpm = round(rpm * mean * BINDING), rpm * max_tokens * 3 // 2
        limit = SimulatedLimit(rpm=rpm, input_tpm=input_tpm, output_tpm=output_tpm)
        texts = f"rpm={rpm} input_tpm={input_tpm} output_tpm={output_tpm}"
        binding = "input-tokens"
    behaviour = Behaviour(
        latency_ms=300, latency_sigma=0.5, limits=LimitTable(limit), burst_s=provider.depth_s,
        fixed_windows=provider.fixed, headers=provider.headers,
        chars_per_token=float(CHARS_PER_TOKEN),
    )  # fmt: skip
    model = "gpt-4o-mini" if openai else "claude-haiku-4-5"
    fleet = Fleet(
        client, behaviour, pool=f"{provider.dialect}/{model}", model=model, limits=texts,
        max_tokens=max_tokens, phase_s=0.4 * provider.depth_s, older=older,
    )  # fmt: skip
    whole_s = settle_s + seconds
    count = int(rpm * BINDING / 60 * (whole_s + provider.depth_s) * 1.1)
    fleet.submit(list(itertools.islice(jobs_of_all_lengths(), count)))
    fleet.run_until(whole_s)
    ours = amounts(fleet.sent, settle_s, whole_s).get(binding, 0)
    theirs = amounts(omniscient(fleet, jobs_of_all_lengths(), whole_s), settle_s, whole_s)[binding]
    counted = [one for one in fleet.sent if one.at_s >= settle_s]
    refused = sum(not one.accepted for one in counted)
    before = sum(not one.accepted for one in fleet.sent) - refused
    return Measured(ours / theirs, 100 * refused / max(1, len(counted) - refused), before)


def jobs_of_all_lengths() -> Iterator[Job]:
    """Prompts of all lengths, with exact estimates."""
    for tokens in lengths(random.Random(7)):  # noqa: S311  repeatable, not secret
        yield Job(tokens, tokens)
