"""The fetch script against a model: no limit exceeded, no hold lost, no job in two places."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from headgate.shared.admission.grant import Grant, Held, Late, decode
from headgate.shared.admission.ticket import Ticket
from headgate.workers.provider import RateSeen
from tests.support.governor_model import Books, Governor, Places, a_hold
from tests.support.machines import holds_in_any_order
from tests.support.rig import BULK, STANDARD
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import TICKET

QUEUES = (STANDARD, BULK)
PAUSED = st.sampled_from(["tenant/acme", "tenant/c", "pool/openai/gpt-4o", f"queue/{BULK}"])
PICKS = st.integers(0, 65_535)
OWNERS = st.sampled_from(["a", "b", "c"])
LIMITS: Mapping[str, str] = {
    "global": "rpm=6000 tpm=300000 burst_s=1",
    "provider/openai": "rpm=4800 tpm=240000 concurrent=9",
    "pool/openai/gpt-4o-mini": "rpm=3000 tpm=200000 burst_s=2",
    "pool/openai/gpt-4o": "input_tpm=120000 output_tpm=60000 burst_s=2 concurrent=4",
    "tenant/acme": "rpm=2400 tpm=180000 burst_s=0.5 concurrent=5",
    "tenant/*": "rpm=3000 burst_s=0.2",
    "user/acme/ann": "rpm=1200 burst_s=0.1",
    "tier/pro": "rpm=1200 tpm=90000 burst_s=0.3 concurrent=3",
    "tier/pro/gpt-4o": "rpm=300 burst_s=0.5",
    "keys/openai": "n=2",
}
TICKETS = st.builds(
    lambda pool, **fields: dataclasses.replace(
        TICKET, pool=f"openai/{pool}", model=pool.removesuffix("~flex"), **fields
    ),
    st.sampled_from(["gpt-4o-mini", "gpt-4o-mini~flex", "gpt-4o", "gpt-unlimited"]),
    priority=st.sampled_from(["interactive", "standard", "bulk"]),
    tenant=st.sampled_from(["acme", "b|,: %/", "c"]),
    user=st.sampled_from(["", "ann", "bob|:"]),
    tier=st.sampled_from(["", "pro"]),
    rule=st.sampled_from(["o", "a"]),
    input_tokens=st.integers(0, 4000),
    output_tokens=st.integers(1, 4000),
    arrival_ms=st.integers(1_000_000, 1_000_100),
    deadline_ms=st.sampled_from([4_000_000_000_000] * 7 + [1_000_000_000]),
    paid=st.booleans(),
    pinned_key=st.sampled_from(["", "", "", "key1"]),
)


class Governed(RuleBasedStateMachine):
    """Workers of three names do what workers may do, and what late ones do all the same."""

    broker: Governor

    @initialize()
    def start(self) -> None:
        self.broker.client.flushall()
        self.broker.settle_down()
        self.broker.passed_ms = 0
        self.broker.limit(**LIMITS)
        self.books = Books(LIMITS)
        self.tickets: dict[str, Ticket] = {}
        self.leased: dict[str, str] = {}
        self.past: dict[str, Held] = {}
        self.held: dict[str, Held] = {}
        self.ended: set[str] = set()
        self.attempts = 0

    def _now(self) -> float:
        return self.broker.now_ms() + self.broker.passed_ms

    def _hold(self, job_id: str, grant: Grant) -> None:
        if self.tickets[job_id].deadline_ms < self.broker.now_ms():
            assert isinstance(grant, Late)
            return
        assert isinstance(grant, Held)
        self.books.granted(grant, self.broker.passed_ms)
        self.held[job_id] = self.past[job_id] = grant

    # What is drawn must not depend on the server, whose clock goes on: a rule picks from what there
    # is, and does nothing where there is nothing.

    def _any(self, pick: int, of: Iterable[str]) -> list[str]:
        found = sorted(of)
        return [found[pick % len(found)]] if found else []

    def _some(self, pick: int, of: Iterable[str]) -> list[str]:
        return [job_id for n, job_id in enumerate(sorted(of)) if pick >> n % 16 & 1]

    @rule(ticket=TICKETS, queue=st.sampled_from(QUEUES), count=st.integers(1, 6))
    def send(self, ticket: Ticket, queue: str, count: int) -> None:
        ids = [f"j{len(self.tickets) + n}" for n in range(count)]
        self.tickets |= dict.fromkeys(ids, ticket)
        assert self.broker.ask_with(ticket, *ids, queue=queue) == count
        assert self.broker.ask_with(ticket, *ids, queue=queue) == 0

    @rule(owner=OWNERS, want=st.integers(0, 8), order=st.permutations(QUEUES))
    def fetch_in_order(self, owner: str, want: int, order: list[str]) -> None:
        self.fetch(owner, want, order)

    def fetch(self, owner: str, want: int, order: list[str]) -> None:
        fetched = self.broker.fetch(want, owner=owner, queues=order)
        assert len(fetched.taken) <= want
        for job in fetched.taken:
            self._hold(job.id, decode(job.grant))
            self.leased[job.id] = owner
        if len(fetched.taken) < want and not fetched.more:
            forgotten = self.broker.client.exists(self.broker.keys.waiting_queues())
            paused = self.broker.client.exists(self.broker.keys.paused())
            assert not forgotten or paused or fetched.next_due_ms is not None

    @rule(owner=OWNERS, want=st.integers(4, 12))
    def fetch_from_all(self, owner: str, want: int) -> None:
        self.fetch(owner, want, list(QUEUES))

    @rule(ms=st.sampled_from([1, 10, 100, 1000, 60_000]))
    def time_passes(self, ms: int) -> None:
        self.broker.advance(ms)

    @rule(member=PAUSED)
    def pause(self, member: str) -> None:
        self.broker.client.sadd(self.broker.keys.paused(), member)

    @rule(member=PAUSED)
    def resume(self, member: str) -> None:
        self.broker.resume(member)

    @rule(
        pool=st.sampled_from(["openai/gpt-4o-mini", "openai/gpt-4o~flex", "openai/gpt-unlimited"]),
        kind=st.sampled_from(["ok", "limited", "slow", "overloaded", "flex"]),
        wait_ms=st.sampled_from([-1, 0, 5000]),
        limit=st.integers(60_000, 10**9),
        missing=st.integers(0, 60_000),
    )
    def hear(self, pool: str, kind: str, wait_ms: int, limit: int, missing: int) -> None:
        told = RateSeen("tpm", limit, limit - missing, 1)
        self.broker.observe(kind, told, pool=pool, wait_ms=wait_ms)

    @rule(pick=PICKS, used=st.none() | st.tuples(st.integers(0, 6000), st.integers(0, 6000)))
    def settle_twice(self, pick: int, used: tuple[int, int] | None) -> None:
        for job_id in self._any(pick, (pick % 4 and self.held) or self.past):
            grant, before_ms = self.past[job_id], self._now()
            is_held = self.held.get(job_id) == grant
            assert self.broker.settle(job_id, grant, used) == is_held
            assert not self.broker.settle(job_id, grant, used)
            if is_held:
                del self.held[job_id]
                self.books.settled(grant, used, before_ms - 1, self._now() + 1)

    @rule(pick=PICKS, copies=st.integers(1, 2), owner=OWNERS)
    def ack(self, pick: int, copies: int, owner: str) -> None:
        ids = self._some(pick, self.leased)
        self.broker.ack(*ids * copies, owner=owner)
        for job_id in ids:
            if self.leased[job_id] == owner:
                del self.leased[job_id]
                self.held.pop(job_id, None)
                self.ended.add(job_id)

    @rule(pick=PICKS)
    def lapse(self, pick: int) -> None:
        ids = self._some(pick, self.leased)
        if not ids:
            return
        self.broker.settle_down()
        self.broker.lapse(*ids)
        self.broker.fetch(0, queues=())
        for job_id in ids:
            del self.leased[job_id]
            self.held.pop(job_id, None)

    @rule(pick=PICKS)
    def restore(self, pick: int) -> None:
        for job_id in self._any(pick, self.leased):
            owner = self.leased.pop(job_id)
            assert self.broker.restore(job_id, job_id, owner=owner) == 1
            self.held.pop(job_id, None)

    @rule(pick=PICKS, ticket=TICKETS, with_ticket=st.booleans())
    def defer(self, pick: int, ticket: Ticket, with_ticket: bool) -> None:
        for job_id in self._any(pick, self.leased):
            text = ticket.encode() if with_ticket else ""
            assert self.broker.put_off(job_id, self.leased[job_id], text)
            assert not self.broker.put_off(job_id, self.leased[job_id], text)
            if with_ticket:
                self.tickets[job_id] = ticket
            self.broker.make_due(job_id)
            del self.leased[job_id]
            self.held.pop(job_id, None)

    @rule(pick=PICKS, ticket=TICKETS)
    def reserve_twice(self, pick: int, ticket: Ticket) -> None:
        for job_id in self._any(pick, self.leased):
            self._reserve(job_id, ticket)

    @rule(pick=PICKS, ticket=TICKETS)
    def reserve_without_a_lease(self, pick: int, ticket: Ticket) -> None:
        """Let a worker stand still, so that it does not know that its lease is over."""
        for job_id in self._any(pick, self.past.keys() - self.leased.keys()):
            self._reserve(job_id, ticket)

    def _reserve(self, job_id: str, ticket: Ticket) -> None:
        self.attempts += 1
        answer = self.broker.reserve(job_id, f"try{self.attempts}", ticket)
        self.held.pop(job_id, None)
        if isinstance(answer, int):
            assert answer >= 1
            return
        grant = a_hold(decode(answer))
        self.books.granted(grant, self.broker.passed_ms)
        if job_id in self.leased:
            self.held[job_id] = self.past[job_id] = grant
            assert self.broker.reserve(job_id, f"try{self.attempts}", ticket) == answer

    @rule(pick=PICKS, owner=OWNERS)
    def renew(self, pick: int, owner: str) -> None:
        for job_id in self._any(pick, self.leased):
            lost = self.broker.renew(job_id, owner=owner).lost
            assert lost == ([] if self.leased[job_id] == owner else [job_id])

    def teardown(self) -> None:
        """Nobody is stuck: with time and without pauses every job is granted and can end."""
        if not hasattr(self, "tickets"):
            return
        paused: Any = self.broker.client.smembers(self.broker.keys.paused())
        for member in paused:
            self.broker.resume(member.decode())
        for _ in range(60 + len(self.tickets)):
            self.broker.ack(*self.leased, owner="a")
            self.broker.ack(*self.leased, owner="b")
            self.broker.ack(*self.leased, owner="c")
            self.leased = dict.fromkeys(self.broker.take(50, queues=QUEUES), "a")
            self.broker.advance(60_000)
            if self.broker.is_empty():
                break
        assert self.broker.is_empty()
        assert Places.of(self.broker, QUEUES).faults == []

    @invariant()
    def all_keys_agree(self) -> None:
        if not hasattr(self, "tickets"):
            return
        places = Places.of(self.broker, QUEUES)
        assert places.faults == []
        assert places.leased == self.leased.keys()
        everywhere = places.queued.keys() | places.in_line.keys() | places.leased | places.due
        assert everywhere == self.tickets.keys() - self.ended

    @invariant()
    def holds_are_those_of_the_model(self) -> None:
        if hasattr(self, "held"):
            holds = self.broker.client.hgetall(self.broker.keys.holds())
            found = {i.decode(): grant.decode() for i, grant in holds.items()}  # type: ignore[union-attr]
            assert found == {i: grant.text for i, grant in self.held.items()}

    @invariant()
    def no_bucket_gives_more_than_it_gains(self) -> None:
        if not hasattr(self, "books"):
            return
        assert self.books.over() == []
        for (name, measure), total in self.books.totals().items():
            told = self.broker.bucket(*name.split("#"))[f"{measure}.total"]
            assert abs(told - total) < 0.01, (name, measure, told, total)


def test_no_limit_is_passed_and_nothing_is_lost_whatever_workers_do(valkey: ValkeyServer) -> None:
    with valkey.client(decode_responses=False) as client:
        holds_in_any_order(Governed, shrinks=False, broker=Governor(client))


SCOPES = {
    "global": "global", "provider": "provider/openai", "pool": "pool/openai/gpt-4o",
    "tenant": "tenant/acme", "user": "user/acme/ann", "tier": "tier/pro",
    "model": "tier/pro/gpt-4o",
}  # fmt: skip
LIMIT_TEXTS = st.builds(
    lambda measure, limit, burst_s: f"{measure}={limit} burst_s={burst_s}",
    st.sampled_from(["rpm", "tpm", "input_tpm", "output_tpm"]),
    st.integers(600, 6000),
    st.sampled_from([0.001, 0.5, 1, 3]),
)


@given(
    limits=st.fixed_dictionaries({}, optional=dict.fromkeys(SCOPES, LIMIT_TEXTS)),
    sizes=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 150)), min_size=30, max_size=60),
    rule=st.sampled_from(["o", "a"]),
    steps=st.lists(
        st.tuples(st.sampled_from([0, 10, 100, 500, 3000]), st.integers(1, 8), st.booleans()),
        min_size=5, max_size=25,
    ),
)  # fmt: skip
@settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)  # fmt: skip
def test_all_buckets_of_a_job_are_kept_at_once_in_every_window(
    valkey: ValkeyServer, limits: dict[str, str], sizes: list[tuple[int, int]],
    rule: Literal["o", "a"], steps: list[tuple[int, int, bool]],
) -> None:  # fmt: skip
    """More waits than any bucket has: what comes out is what the tightest of them lets through."""
    with valkey.client(decode_responses=False) as client:
        client.flushall()
        broker = Governor(client)
        broker.settle_down()
        texts = {SCOPES[name]: text for name, text in limits.items()}
        broker.limit(**texts)
        books = Books(texts)
        fields: dict[str, Any] = {
            "user": "ann",
            "tier": "pro",
            "rule": rule,
            "pool": "openai/gpt-4o",
        }
        for n, (input_tokens, output_tokens) in enumerate(sizes):
            broker.ask(
                f"j{n}", input_tokens=input_tokens, output_tokens=output_tokens,
                **fields,
            )  # fmt: skip
        for ms, want, settles in steps:
            broker.advance(ms)
            while found := broker.holds(want):
                for job_id, grant in found.items():
                    books.granted(grant, broker.passed_ms)
                    if settles and job_id[-1] in "37":
                        used = None if job_id.endswith("7") else (1, 200)
                        before_ms = broker.now_ms() + broker.passed_ms
                        broker.settle(job_id, grant, used)
                        after_ms = broker.now_ms() + broker.passed_ms
                        books.settled(grant, used, before_ms - 1, after_ms + 1)
        assert books.over() == []
        for (name, measure), total in books.totals().items():
            assert broker.bucket(*name.split("#"))[f"{measure}.total"] == pytest.approx(total)
        assert Places.of(broker, QUEUES).faults == []
