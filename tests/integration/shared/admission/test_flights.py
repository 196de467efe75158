"""One call for equal requests: who leads, who follows, and what becomes of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.shared.admission.grant import Elsewhere, Grant, Held, Late, ModelDown, Shared
from headgate.shared.broker import jobs, script
from tests.support.governor_model import Governor, Places
from tests.support.machines import holds_in_any_order
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL

ALL = (URGENT, STANDARD, BULK)
SAME = "f" * 64


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Governor]:
    with valkey.client(decode_responses=False) as client:
        broker = Governor(client)
        broker.settle_down()
        yield broker
        assert Places.of(broker, ALL).faults == []


def keep(broker: Governor, fingerprint: str = SAME) -> None:
    """Put the answer into the cache."""
    broker.client.set(broker.keys.cache(fingerprint), b"{}")


def kinds(broker: Governor, **others: Any) -> dict[str, type[Grant]]:
    """Job id to the kind of grant that one round trip brings."""
    return {i: type(grant) for i, grant in broker.grants(2000, **others).items()}


def test_of_equal_jobs_one_is_granted_and_the_others_follow_it(broker: Governor) -> None:
    ids = [f"j{n}" for n in range(300)]
    broker.ask(*ids, cached_as=SAME)
    granted: dict[str, type[Grant]] = {}
    for _ in range(5):
        granted |= kinds(broker)
    assert granted == {"j0": Held}
    assert Places.of(broker, ALL).following.total() == 299
    keep(broker)
    landed = kinds(broker, acked=["j0"])
    for _ in range(5):
        landed |= kinds(broker)
    assert landed == dict.fromkeys(ids[1:], Shared)
    broker.ack(*landed)
    assert broker.is_empty()


def test_only_equal_requests_that_the_cache_may_serve_and_that_may_share_do(
    broker: Governor,
) -> None:
    broker.ask("a", "b", cached_as="")
    broker.ask("c", cached_as=SAME)
    broker.ask("d", cached_as=SAME, alone=True)
    broker.ask("e", cached_as="0" * 64)
    broker.ask("g", cached_as=SAME)
    assert kinds(broker) == dict.fromkeys("abcde", Held)
    assert broker.leased().keys() == set("abcde")


@pytest.mark.parametrize("how", ["crash", "restore", "defer", "no answer"])
def test_when_the_leader_goes_without_an_answer_one_follower_leads(
    broker: Governor, how: str
) -> None:
    broker.ask("a", "b", "c", cached_as=SAME)
    assert kinds(broker) == {"a": Held}
    if how == "crash":
        broker.lapse("a")
    elif how == "restore":
        broker.restore("a")
    elif how == "defer":
        broker.defer("a", 60_000)
    else:
        broker.ack("a")
    [leader] = kinds(broker)
    again = how in ("crash", "restore")  # it comes back at once, to its place
    assert leader in ("a" if again else ("b", "c"))
    assert Places.of(broker, ALL).faults == []
    keep(broker)
    broker.ack(leader)
    assert set(kinds(broker).values()) == {Shared}


def test_a_failed_call_is_shared_with_those_who_waited_and_with_nobody_else(
    broker: Governor,
) -> None:
    broker.ask("a", "b", cached_as=SAME)
    assert kinds(broker) == {"a": Held}
    broker.client.set(broker.keys.failure(SAME), b"{}")
    broker.ack("a")
    broker.ask("c", cached_as=SAME)
    assert kinds(broker) == {"b": Shared, "c": Held}


@pytest.mark.parametrize("why", ["down", "too late"])
def test_equal_jobs_that_go_to_another_model_follow_one_of_them(broker: Governor, why: str) -> None:
    soon = broker.now_ms() + 20_000
    if why == "down":
        name = broker.keys.breaker(POOL, "key0")
        broker.client.hset(name, mapping={"state": "open", "retry_at": soon})
    else:
        broker.client.hset(broker.keys.gate(POOL, "key0"), mapping={"until": soon + 60_000})
    broker.ask("a", "b", "c", cached_as=SAME, replaceable=True, deadline_ms=soon)
    found: dict[str, type[Grant]] = kinds(broker)
    for _ in range(3):
        found |= kinds(broker)
    assert found == {"a": ModelDown if why == "down" else Elsewhere}
    assert Places.of(broker, ALL).following.keys() == {"b", "c"}
    keep(broker)
    assert kinds(broker, acked=["a"]) == dict.fromkeys("bc", Shared)


def test_an_urgent_job_leads_before_a_bulk_one_that_waits_itself(broker: Governor) -> None:
    broker.limit(**{"pool/openai/gpt-4o-mini": "rpm=1 burst_s=120"})
    broker.ask("other", queue=BULK, priority="bulk", age_ms=1000)
    broker.ask("bulk", queue=BULK, priority="bulk", cached_as=SAME)
    assert broker.take(queues=ALL) == ["other"]
    broker.ask("urgent", queue=URGENT, priority="interactive", cached_as=SAME)
    assert broker.take(queues=ALL) == []
    broker.advance(66_000)
    assert broker.take(queues=ALL) == ["urgent"]
    broker.advance(120_000)
    assert broker.take(queues=ALL) == []
    assert Places.of(broker, ALL).following == {"bulk": 1}


def test_a_follower_whose_deadline_passes_ends_late_and_one_that_is_cancelled_leaves(
    broker: Governor,
) -> None:
    broker.ask("a", cached_as=SAME)
    assert kinds(broker) == {"a": Held}
    broker.ask("b", cached_as=SAME, deadline_ms=broker.now_ms() + 60_000)
    broker.ask("c", "d", cached_as=SAME)
    fetched = broker.fetch(10)
    assert fetched.taken == []
    assert fetched.next_due_ms is not None
    assert fetched.next_due_ms <= 60_000
    assert script.run(broker.client, jobs.forget(broker.keys, ["c"])) == 1
    broker.client.zadd(broker.keys.followers(), {"b": broker.now_ms() - 1}, xx=True)
    assert kinds(broker) == {}  # its own word, the ticket, says that it is not late yet
    assert Places.of(broker, ALL).following.keys() == {"b", "d"}


def test_a_late_follower_ends_as_late(broker: Governor) -> None:
    broker.ask("a", cached_as=SAME)
    assert kinds(broker) == {"a": Held}
    broker.ask("b", cached_as=SAME, deadline_ms=broker.now_ms() + 5)
    found: dict[str, type[Grant]] = {}
    while "b" not in found:
        found |= kinds(broker)
    assert found["b"] == Late


def test_more_followers_than_one_call_sends_back_all_land(broker: Governor) -> None:
    ids = [f"j{n}" for n in range(1300)]
    broker.ask(*ids, cached_as=SAME)
    while Places.of(broker, ALL).following.total() < 1299:
        broker.fetch(10)
    keep(broker)
    found = kinds(broker, acked=["j0"])
    while len(found) < 1299:
        more = kinds(broker)
        assert more
        found |= more
    assert set(found.values()) == {Shared}
    broker.ack(*found)
    assert broker.is_empty()


def test_a_job_that_is_gone_when_its_turn_comes_leads_nobody(broker: Governor) -> None:
    broker.ask("a", cached_as=SAME)
    assert kinds(broker) == {"a": Held}
    gate = broker.keys.gate(POOL, "key0")
    broker.client.hset(gate, mapping={"until": broker.now_ms() + 60_000})
    broker.lapse("a")
    assert kinds(broker) == {}
    broker.renew("a")  # its worker was only silent, and ends the job that stands in line again
    broker.ack("a")
    broker.resume(f"pool/{POOL}")
    assert kinds(broker) == {}
    broker.ask("b", cached_as=SAME)
    assert kinds(broker) == {"b": Held}


class OlderWorker:
    """A worker of the release before: its scripts end leases, and know of no flights."""

    def __init__(self, broker: Governor) -> None:
        self.broker = broker

    def fetch(self, owner: str, *acked: jobs.Lease) -> list[str]:
        """Fetch once, and return the ids."""
        command = jobs.fetch(
            self.broker.keys, owner=owner, lease_ms=60_000, want=1, queues=[STANDARD], acked=acked
        )
        forget_flights = "for name in pairs(flights) do flights[name] = function() end end\n"
        own = "-- Purpose: the one call of a worker's round trip"
        text = command.text.replace(own, forget_flights + own)
        assert text != command.text
        reply = self.broker.client.eval(text, len(command.keys), *command.keys, *command.args)
        return [job.id for job in command.read(reply).taken]


@pytest.mark.parametrize("who", ["who follows it", "who comes next"])
def test_a_flight_whose_leader_was_ended_by_the_release_before_holds_nobody_up(
    broker: Governor, who: str
) -> None:
    broker.ask("a", cached_as=SAME)
    if who == "who follows it":
        broker.ask("b", cached_as=SAME)
    assert kinds(broker) == {"a": Held}
    broker.lapse("a")
    older = OlderWorker(broker)
    assert older.fetch("older#1") == ["a"]
    assert older.fetch("older#2", jobs.Lease("a", "older#1")) == []
    if who == "who comes next":
        broker.ask("b", cached_as=SAME)
    assert kinds(broker) == {"b": Held}


class Flights(RuleBasedStateMachine):
    """Workers that take, finish, lose, give back and put off jobs of few questions."""

    broker: Governor

    def __init__(self) -> None:
        super().__init__()
        self.broker.client.flushall()
        self.broker.settle_down()
        self.sent = 0
        self.open: set[str] = set()
        self.names: dict[str, str] = {}
        self.held: dict[str, Grant] = {}

    @rule(
        count=st.integers(1, 4), name=st.sampled_from(["", "x", "y"]), alone=st.booleans(),
        queue=st.sampled_from(ALL),
    )  # fmt: skip
    def submit(self, count: int, name: str, alone: bool, queue: str) -> None:
        ids = [f"j{self.sent + n}" for n in range(count)]
        self.sent += count
        self.open.update(ids)
        self.names.update(dict.fromkeys(ids, "" if alone else name))
        self.broker.ask(*ids, queue=queue, cached_as=name, alone=alone)

    @rule(want=st.integers(1, 5))
    def fetch(self, want: int) -> None:
        for job_id, grant in self.broker.grants(want, queues=ALL).items():
            assert job_id in self.open
            if isinstance(grant, Shared):
                assert self.broker.client.exists(self.broker.keys.cache(self.names[job_id]))
            name = self.names[job_id]
            if name and isinstance(grant, Held):
                calls = [i for i in self.held if self.names[i] == name]
                assert not calls, f"{job_id} and {calls} are equal and run at once"
            self.held[job_id] = grant

    @rule(which=st.integers(0, 9), kept=st.booleans())
    def finish(self, which: int, kept: bool) -> None:
        if job_id := self._one(which):
            if kept and self.names[job_id]:
                self.broker.client.set(self.broker.keys.cache(self.names[job_id]), b"{}", px=60_000)
            self.broker.ack(job_id)
            self.open.discard(job_id)

    @rule(which=st.integers(0, 9))
    def die(self, which: int) -> None:
        if job_id := self._one(which):
            self.broker.lapse(job_id)
            self.broker.fetch(0, queues=())

    @rule(which=st.integers(0, 9))
    def give_back(self, which: int) -> None:
        if job_id := self._one(which):
            self.broker.restore(job_id)

    @rule(which=st.integers(0, 9))
    def put_off(self, which: int) -> None:
        if job_id := self._one(which):
            self.broker.defer(job_id, 60_000)

    @rule(which=st.integers(0, 30))
    def cancel(self, which: int) -> None:
        waiting = sorted(self.open - self.held.keys())
        if waiting:
            job_id = waiting[which % len(waiting)]
            if script.run(self.broker.client, jobs.forget(self.broker.keys, [job_id])):
                self.open.discard(job_id)

    @rule(name=st.sampled_from(["x", "y"]))
    def forget_answers(self, name: str) -> None:
        self.broker.client.delete(self.broker.keys.cache(name))

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        assert self.broker.present() == self.open
        assert Places.of(self.broker, ALL).faults == []

    def teardown(self) -> None:
        """End what is open, whatever has happened before."""
        for _ in range(50):
            self.broker.ack(*self.held)
            self.open -= self.held.keys()
            self.held.clear()
            if not self.open:
                break
            self.broker.make_due()
            self.fetch(100)
        assert not self.open

    def _one(self, which: int) -> str | None:
        if not self.held:
            return None
        job_id = sorted(self.held)[which % len(self.held)]
        del self.held[job_id]
        return job_id


def test_whatever_happens_equal_jobs_have_one_call_at_a_time_and_none_is_lost(
    valkey: ValkeyServer,
) -> None:
    with valkey.client(decode_responses=False) as client:
        holds_in_any_order(Flights, steps=25, broker=Governor(client))
