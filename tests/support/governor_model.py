"""What the governor's scripts must leave behind, told by a small model in Python.

`Governor` drives the scripts over one installation and can let time pass for its buckets; `Places`
reads every key and tells what does not fit together; `Books` adds up what was granted.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headgate.shared.admission.grant import Grant, Held, decode
from headgate.shared.admission.limits import parsed
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.figures import BURST, OWN_BURST_S, RATE
from headgate.workers.provider import RateSeen
from headgate.workers.stages import hold
from tests.support.rig import STANDARD, Broker
from tests.support.waiting_rooms import POOL, TICKET

TIMES_OF_A_GATE = ("asked", "until", "probe_at", "shut_at", "pace_at", "ceiling_at")
MEASURES = ("rpm", "tpm", "input_tpm", "output_tpm")


def a_hold(grant: Grant) -> Held:
    """The grant, which is a hold."""
    assert isinstance(grant, Held), grant
    return grant


class Governor(Broker):
    """A broker whose messages carry tickets, and whose clock can be moved on."""

    passed_ms = 0.0

    def ask(self, *ids: str, queue: str = STANDARD, age_ms: int = 0, **fields: Any) -> int:
        """Jobs with these tickets are sent; how many were new."""
        ticket = replace(TICKET, arrival_ms=self.now_ms() - age_ms, **fields)
        return self.ask_with(ticket, *ids, queue=queue)

    def ask_with(self, ticket: Ticket, *ids: str, queue: str = STANDARD) -> int:
        """Jobs with this very ticket are sent; how many were new."""
        text = ticket.encode()
        pairs = [(i, f'{{"hg":"{i}","at":"{text}","body":"x"}}'.encode()) for i in ids]
        return script.run(self.client, broker_jobs.send(self.keys, queue, pairs))

    def limit(self, **scopes: str) -> None:
        """These limits count, and no others: `limit(**{"tenant/acme": "rpm=60"})`."""
        self.client.delete(self.keys.limits())
        if scopes:
            self.client.hset(self.keys.limits(), mapping=scopes)  # type: ignore[arg-type]
        self.resume("")

    def grants(self, want: int = 10, **others: Any) -> dict[str, Grant]:
        """What one round trip brings: job id to grant."""
        return {job.id: decode(job.grant) for job in self.fetch(want, **others).taken}

    def holds(self, want: int = 10, **others: Any) -> dict[str, Held]:
        """The same where every job gets a hold."""
        return {job_id: a_hold(grant) for job_id, grant in self.grants(want, **others).items()}

    def settle(self, job_id: str, grant: Held, used: tuple[int, int] | None) -> bool:
        """The attempt has ended."""
        command = hold.settle(self.keys, job_id=job_id, grant=grant.text, used=used)
        return script.run(self.client, command)

    def reserve(self, job_id: str, attempt: str, ticket: Ticket) -> str | int:
        """One more attempt of the job asks for its hold."""
        text = ticket.encode()
        command = hold.reserve(self.keys, job_id=job_id, attempt=attempt, ticket=text)
        return script.run(self.client, command)

    def observe(self, kind: str = "ok", *seen: RateSeen, pool: str = POOL, **others: Any) -> None:
        """The provider has said something of the pool."""
        others.setdefault("granted_at_ms", self.now_ms())
        command = hold.observe(self.keys, pool=pool, key="key0", kind=kind, seen=seen, **others)
        script.run(self.client, command)

    def put_off(self, job_id: str, owner: str, ticket: str) -> bool:
        """The job has left for the line of its pool, to stand there with this ticket."""
        lease = self.lease(job_id, owner)
        command = broker_jobs.defer(self.keys, lease=lease, wait_ms=0, ticket=ticket)
        return script.run(self.client, command)

    def resume(self, member: str) -> None:
        """An operator lets something go on."""
        command = script.compose("resume", (), (self.keys.prefix, member), lambda reply: reply)
        script.run(self.client, command)

    def bucket(self, scope: str, key: str = "") -> dict[str, float]:
        """The bucket of a scope as it is stored."""
        found: Any = self.client.hgetall(self.keys.bucket(scope, key))
        return {name.decode(): float(amount) for name, amount in found.items()}

    def gate(self, pool: str = POOL) -> dict[str, str]:
        """The gate of a pool as it is stored."""
        found: Any = self.client.hgetall(self.keys.gate(pool, "key0"))
        return {name.decode(): value.decode() for name, value in found.items()}

    def fill_up(self, pool: str) -> None:
        """The bucket of calls of this pool is full: it has been known for long."""
        level: dict[Any, Any] = {"rpm.level": 1e12, "rpm.at": self.now_ms()}
        self.client.hset(self.keys.bucket(f"pool/{pool}", "key0"), mapping=level)

    def advance(self, ms: float) -> None:
        """This much time has passed for buckets, gates, and jobs that are parked or due later."""
        self.passed_ms += ms
        for name in self._names("headgate:bucket:*"):
            for part, value in self._hash(name).items():
                if part.endswith((".at", "_at")):
                    self.client.hset(name, part, f"{float(value) - ms:.3f}")
        for name in self._names("headgate:gate:*"):
            for part, value in self._hash(name).items():
                if part in TIMES_OF_A_GATE:
                    self.client.hset(name, part, f"{float(value) - ms:.3f}")
        shut = self.keys.shut_queues()
        for name in (*self._names("headgate:room:*:parked"), shut, self.keys.due()):
            later = {member: at - ms for member, at in self.scores(name).items()}
            if later:
                self.client.zadd(name, later)

    def _names(self, pattern: str) -> list[str]:
        return [name.decode() for name in self.client.scan_iter(self.keys.prefix + pattern)]

    def scores(self, name: str) -> dict[str, float]:
        """A sorted set by its first member."""
        found: Any = self.client.zrange(name, 0, -1, withscores=True)
        return {member.decode(): score for member, score in found}

    def _hash(self, name: str) -> dict[str, str]:
        found: Any = self.client.hgetall(name)
        return {part.decode(): value.decode() for part, value in found.items()}


@dataclass(slots=True)
class Places:
    """Where every job is, read from all keys."""

    queued: Counter[str] = field(default_factory=Counter)
    in_line: Counter[str] = field(default_factory=Counter)
    leased: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    following: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, broker: Governor, queues: Iterable[str]) -> "Places":
        """All that is on the server; `faults` tells what does not agree."""
        self = cls()
        client, keys = broker.client, broker.keys
        for queue in queues:
            self.queued.update(broker.waiting_ids(queue))
        self.leased = set(broker.scores(keys.leases()))
        self.due = broker.due()
        self._rooms(broker)
        self._flights(broker)
        owners = broker.leased().keys()
        self._expect("owners", owners, self.leased)
        everywhere = self.queued + self.in_line + Counter(self.leased) + Counter(self.due)
        everywhere += self.following
        self._expect("in two places", [i for i, n in everywhere.items() if n > 1], ())
        self._expect("present", broker.present(), everywhere)
        stored: Any = client.hgetall(keys.messages())
        messages = {i.decode() for i in stored}
        self._expect("messages", messages, everywhere.keys() - self.queued.keys())
        held: Any = client.hgetall(keys.holds())
        holds = {i.decode(): grant.decode() for i, grant in held.items()}
        self._expect("holds without a lease", holds.keys() - self.leased, ())
        running: Counter[str] = Counter()
        for grant in holds.values():
            running.update(name for name in grant.rpartition("|")[2].split(",") if name)
        for name in broker._names("headgate:bucket:*"):
            scope = name.removeprefix(f"{keys.prefix}headgate:bucket:")
            told = int(float(broker._hash(name).get("running", 0)))
            self._expect(f"running of {scope}", [told], [running.pop(scope, 0)])
        self._expect("running without a bucket", running, ())
        return self

    def _expect(self, what: str, found: Iterable[object], expected: Iterable[object]) -> None:
        found, expected = sorted(map(str, found)), sorted(map(str, expected))
        if found != expected:
            self.faults.append(f"{what}: {found} instead of {expected}")

    def _rooms(self, broker: Governor) -> None:
        keys = broker.keys
        start = f"{keys.prefix}headgate:line:"
        lines: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
        counts: Counter[str] = Counter()
        for name in broker._names("headgate:line:*"):
            room, tenant, user = name.removeprefix(start).rsplit(":", 2)
            jobs = broker.scores(name)
            lines[room][tenant, user] = next(iter(jobs.values()))
            counts[room] += len(jobs)
            self.in_line.update(member.partition("|")[0] for member in jobs)
        told = {room: int(n) for room, n in broker._hash(keys.waiting_queues()).items()}
        self._expect("rooms", told.items(), counts.items())
        for room, of_room in lines.items():
            self._room(broker, room, of_room)
        self._index(broker, {room: min(of_room.values()) for room, of_room in lines.items()})
        for name in broker._names("headgate:room:*"):
            room, _, what = name.removeprefix(f"{keys.prefix}headgate:room:").rpartition(":")
            if room not in counts and what != "parked":
                self.faults.append(f"{name} is left of an empty room")
            if room not in counts and math.inf in broker.scores(name).values():
                self.faults.append(f"{name} keeps somebody out for ever")
        for name in broker._names("headgate:users:*"):
            room, _, tenant = name.removeprefix(f"{keys.prefix}headgate:users:").rpartition(":")
            tenant = tenant.removesuffix("|served")
            if tenant not in {who for who, _ in lines.get(room, {})}:
                self.faults.append(f"{name} is left of a tenant that has no job there")

    def _index(self, broker: Governor, ranks: Mapping[str, float]) -> None:
        ready = broker.scores(broker.keys.ready_queues())
        shut = broker.scores(broker.keys.shut_queues())
        self._expect("ready and shut", ready.keys() & shut.keys(), ())
        self._expect("rooms out of the index", ranks.keys() - ready.keys() - shut.keys(), ())
        late = [room for room, rank in ready.items() if rank > ranks.get(room, math.inf)]
        self._expect("rooms that stand too late", late, ())

    def _flights(self, broker: Governor) -> None:
        keys = broker.keys
        for name in broker._names("headgate:flight:*"):
            self.following.update(broker.scores(name).keys())
        self._expect("followers", broker.scores(keys.followers()), self.following)
        leaders, flights = broker._hash(keys.leaders()), broker._hash(keys.flights())
        self._expect("leaders without a lease", leaders.keys() - self.leased, ())
        led = {name: job_id for job_id, name in leaders.items()}
        self._expect("flights", flights.items(), led.items())
        self._expect("leaders of one flight", leaders.values(), led)
        for name in broker._names("headgate:flight:*"):
            flight = name.removeprefix(f"{keys.prefix}headgate:flight:")
            if flight not in flights and flight:
                self.faults.append(f"{name} is left of a flight that has ended")

    def _room(self, broker: Governor, room: str, lines: Mapping[tuple[str, str], float]) -> None:
        queue, _, pool = room.rpartition(" ")
        keys = broker.keys

        def members(part: str) -> dict[str, float]:
            return broker.scores(keys.waiting_queue(queue, pool, part))

        ages, tenants, parked = members("ages"), members("tenants"), members("parked")
        self._expect("ages", ages.items(), {"|".join(w): at for w, at in lines.items()}.items())
        shut_out = {who[2:] for who in parked if who.startswith("t|")}
        for tenant in {tenant for tenant, _ in lines}:
            users_key = keys.users(queue, pool, tenant)
            users = broker.scores(users_key).keys()
            aside = {w.split("|")[2] for w in parked if w.startswith(f"u|{tenant}|")}
            self._expect(f"in turn and aside of {tenant}", users & aside, ())
            expected = {user for who, user in lines if who == tenant}
            self._expect(f"users of {tenant}", users | aside, expected)
            takes_turns = bool(users) and tenant not in shut_out
            self._expect(f"turn of {tenant}", [tenant in tenants], [takes_turns])
        self._expect("tenants without a job", tenants.keys() - {who for who, _ in lines}, ())


@dataclass(frozen=True, slots=True)
class Change:
    """What was taken from (or, below 0, given back to) one measure, between these moments (ms).

    `is_debt`: nobody asked whether it was there.
    """

    from_ms: float
    to_ms: float
    amount: float
    is_debt: bool = False


@dataclass(slots=True)
class Books:
    """What was granted and given back of each measure of each bucket, by the limits given."""

    limits: Mapping[str, str]
    changes: dict[tuple[str, str], list[Change]] = field(default_factory=lambda: defaultdict(list))

    def scopes(self, grant: Held) -> list[tuple[str, str]]:
        """Name of the bucket and scope of all that limits this grant."""
        pool = grant.pool.removesuffix("~flex")
        tenant, user = (grant.text.split("|")[n] for n in (8, 9))
        provider = f"provider/{pool.partition('/')[0]}"
        found = [(f"pool/{pool}#{grant.key}", f"pool/{pool}")]
        found += [(f"{provider}#{grant.key}", provider), ("global#", "global")]
        own = f"tenant/{tenant}"
        found.append((f"{own}#", own if own in self.limits else "tenant/*"))
        if not grant.terms.paid:
            who = f"{tenant}/{user}"
            found.append((f"user/{who}#", f"user/{who}"))
            tier = f"tier/{grant.terms.tier}"
            found.append((f"{tier}/{who}#", tier))
            found.append((f"{tier}/{who}/{grant.model}#", f"{tier}/{grant.model}"))
        return [(name, scope) for name, scope in found if scope in self.limits]

    def granted(self, grant: Held, passed_ms: float) -> None:
        """All buckets of the grant gave what it holds."""
        at_ms = grant.granted_at_ms + passed_ms
        for name, scope in self.scopes(grant):
            for measure, amount in _amounts(grant.input_tokens, grant.output_tokens).items():
                if measure in parsed(self.limits[scope]):
                    self.changes[name, measure].append(Change(at_ms - 0.5, at_ms + 0.5, amount))

    def settled(
        self, grant: Held, used: tuple[int, int] | None, from_ms: float, to_ms: float
    ) -> None:
        """What was not used came back where buckets are corrected."""
        held = _amounts(grant.input_tokens, grant.output_tokens)
        took = _amounts(*used) if used else dict.fromkeys(MEASURES, 0)
        for name, scope in self.scopes(grant):
            vendor = name.startswith(("pool/", "provider/"))
            if vendor and grant.rule != "a" and used:
                continue
            for measure in MEASURES:
                back = took[measure] - held[measure]
                if back and measure in parsed(self.limits[scope]):
                    self.changes[name, measure].append(Change(from_ms, to_ms, back, back > 0))

    def totals(self) -> dict[tuple[str, str], float]:
        """Granted less given back."""
        return {
            place: sum(change.amount for change in changes)
            for place, changes in self.changes.items()
        }

    def over(self) -> list[str]:
        """Windows in which a measure gave more than its bucket can hold and gain."""
        return [fault for place in self.changes for fault in self._over(*place)]

    def _over(self, name: str, measure: str) -> list[str]:
        found = []
        scope = self._scope_of(name)
        capacity, rate = capacity_and_rate(self.limits[scope], measure, name)
        changes = self.changes[name, measure]
        asked = (c for c in changes if c.amount > 0 and not c.is_debt)
        takes = sorted(asked, key=lambda c: c.from_ms)
        backs = [c for c in changes if c.amount < 0]
        for first, start in enumerate(takes):
            total = largest = 0.0
            for end in takes[first:]:
                total += end.amount
                largest = max(largest, end.amount)
                back = -sum(
                    c.amount for c in backs
                    if c.to_ms >= start.from_ms and c.from_ms <= end.to_ms
                )  # fmt: skip
                most = max(capacity, largest) + rate * (end.to_ms - start.from_ms) + 0.01
                if total - back > most:
                    span_ms = end.to_ms - start.from_ms
                    found.append(
                        f"{measure} of {name}: {total} less {back} in {span_ms:.1f} ms,"
                        f" at most {most:.3f}"
                    )
        return found

    def _scope_of(self, name: str) -> str:
        plain = name.partition("#")[0]
        if name.startswith("tier/"):
            words = plain.split("/")
            return "/".join((*words[:2], *words[4:]))
        if plain in self.limits:
            return plain
        return "tenant/*"


def capacity_and_rate(limits: str, measure: str, name: str) -> tuple[float, float]:
    """What the bucket of this name can hold, and what it gains in a ms."""
    amounts = parsed(limits)
    limit = amounts[measure] or 0.0
    burst_s = amounts.get("burst_s")
    if name.startswith(("pool/", "provider/")):
        limit *= RATE
        return max(1, limit / 60 * (burst_s or 1) * BURST), limit / 60_000
    return max(1, limit / 60 * (burst_s or OWN_BURST_S)), limit / 60_000


def _amounts(input_tokens: int, output_tokens: int) -> dict[str, int]:
    amounts = (1, input_tokens + output_tokens, input_tokens, output_tokens)
    return dict(zip(MEASURES, amounts, strict=True))


def jain(shares: Iterable[float]) -> float:
    """1 when all are equal, 1/n when one has everything."""
    found = list(shares)
    return sum(found) ** 2 / (len(found) * sum(share * share for share in found))
