"""The lease scripts against a model in Python: every job is in one place, whatever the order."""

import json

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.support.machines import holds_in_any_order
from tests.support.rig import BULK, STANDARD, Broker, message_of
from tests.support.servers import ValkeyServer

OWNERS = st.sampled_from(["a", "b", "c"])
QUEUES = st.sampled_from([STANDARD, BULK])


class Leases(RuleBasedStateMachine):
    """Time does not pass by itself here: leases lapse and deferrals end when a rule says so."""

    broker: Broker

    @initialize()
    def start(self) -> None:
        self.broker.client.flushall()
        self.broker.settle_down()
        self.count = 0
        self.queues: dict[str, list[str]] = {STANDARD: [], BULK: []}
        self.home: dict[str, str] = {}
        self.leased: dict[str, str] = {}
        self.due: set[str] = set()
        self.acked: set[str] = set()
        self.crashes: dict[str, int] = {}

    def _any(self, draw: st.DataObject, of: object) -> str:
        return draw.draw(st.sampled_from(sorted(of)))  # type: ignore[call-overload,no-any-return]

    def _to_head(self, job_id: str) -> None:
        self.queues[self.home[job_id]].insert(0, job_id)

    @rule(queue=QUEUES, count=st.integers(1, 4))
    def send(self, queue: str, count: int) -> None:
        ids = [f"j{self.count + n}" for n in range(count)]
        self.count += count
        assert self.broker.send(*ids, queue=queue) == count
        self.queues[queue] += ids
        self.home |= dict.fromkeys(ids, queue)

    @precondition(lambda self: self.home.keys() - self.acked)
    @rule(data=st.data())
    def send_again_what_is_known(self, data: st.DataObject) -> None:
        job_id = self._any(data, self.home.keys() - self.acked)
        assert self.broker.send(job_id, queue=self.home[job_id]) == 0

    @precondition(lambda self: self.leased or self.due)
    @rule(data=st.data())
    def put_a_second_copy(self, data: st.DataObject) -> None:
        """A copy goes to the head, so that the next fetch meets it while the first one lives."""
        job_id = self._any(data, self.leased.keys() | self.due)
        queue = self.home[job_id]
        self.broker.client.rpush(queue, message_of(job_id))
        assert self.broker.take(1, queues=(queue,)) == self._model_fetch("a", 1, (queue,))

    @rule(owner=OWNERS, want=st.integers(0, 5), order=st.permutations([STANDARD, BULK]))
    def fetch(self, owner: str, want: int, order: list[str]) -> None:
        fetched = self.broker.fetch(want, owner=owner, queues=order)
        assert [job.id for job in fetched.taken] == self._model_fetch(owner, want, tuple(order))
        for job in fetched.taken:
            assert job.crashes == self.crashes.get(job.id, 0)
            assert (job.queue, job.message) == (self.home[job.id], message_of(job.id))
        if len(fetched.taken) < want:
            assert not any(self.queues.values())
        assert fetched.more == any(self.queues[queue] for queue in order)

    def _model_fetch(self, owner: str, want: int, order: tuple[str, ...]) -> list[str]:
        taken: list[str] = []
        for queue in order:
            cut = want - len(taken)
            taken += self.queues[queue][:cut]
            del self.queues[queue][:cut]
        self.leased |= dict.fromkeys(taken, owner)
        return taken

    @precondition(lambda self: self.home)
    @rule(data=st.data(), owner=OWNERS)
    def ack(self, data: st.DataObject, owner: str) -> None:
        job_id = self._any(data, self.home)
        self.broker.ack(job_id, owner=owner)
        if self.leased.get(job_id) == owner:
            del self.leased[job_id]
            self.crashes.pop(job_id, None)
            self.acked.add(job_id)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), owner=OWNERS)
    def renew(self, data: st.DataObject, owner: str) -> None:
        job_id = self._any(data, self.leased)
        renewed = self.broker.renew(job_id, owner=owner)
        assert renewed.lost == ([] if self.leased[job_id] == owner else [job_id])

    @precondition(lambda self: self.home)
    @rule(data=st.data(), owner=OWNERS)
    def restore(self, data: st.DataObject, owner: str) -> None:
        job_id = self._any(data, self.home)
        held = self.leased.get(job_id) == owner
        assert self.broker.restore(job_id, owner=owner) == int(held)
        if held:
            del self.leased[job_id]
            self._to_head(job_id)

    @precondition(lambda self: self.home)
    @rule(data=st.data(), owner=OWNERS)
    def defer(self, data: st.DataObject, owner: str) -> None:
        job_id = self._any(data, self.home)
        held = self.leased.get(job_id) == owner
        assert self.broker.defer(job_id, 3_600_000, owner=owner) == held
        if held:
            del self.leased[job_id]
            self.crashes.pop(job_id, None)
            self.due.add(job_id)

    @precondition(lambda self: self.due)
    @rule(data=st.data())
    def become_due(self, data: st.DataObject) -> None:
        job_id = self._any(data, self.due)
        self.broker.make_due(job_id)
        self.broker.fetch(0, queues=())
        self.due.remove(job_id)
        self._to_head(job_id)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        job_id = self._any(data, self.leased)
        self.broker.settle_down()
        self.broker.lapse(job_id)
        self.broker.fetch(0, queues=())
        del self.leased[job_id]
        self.crashes[job_id] = self.crashes.get(job_id, 0) + 1
        self._to_head(job_id)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def lapse_in_a_silence(self, data: st.DataObject) -> None:
        """The server was frozen: the lease is over, and its worker renews first of all."""
        job_id = self._any(data, self.leased)
        self.broker.lapse(job_id)
        self.broker.fall_silent(3_600_000)
        self.broker.fetch(0, queues=())
        assert self.broker.renew(job_id, owner=self.leased[job_id]).lost == []

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        if not hasattr(self, "home"):
            return
        for queue, ids in self.queues.items():
            raw = self.broker.waiting(queue)
            assert [json.loads(message)["hg"] for message in raw] == ids
        assert self.broker.leased() == self.leased
        assert self.broker.due() == self.due
        assert self.broker.present() == self.home.keys() - self.acked
        assert self.broker.crashes() == self.crashes
        stored: dict[bytes, bytes] = self.broker.client.hgetall(self.broker.keys.messages())  # type: ignore[assignment]
        assert stored.keys() == {i.encode() for i in self.leased.keys() | self.due}
        lease_ids = set(self.broker.client.zrange(self.broker.keys.leases(), 0, -1))
        assert lease_ids == {i.encode() for i in self.leased}


def test_every_job_is_in_one_place_whatever_workers_do(valkey: ValkeyServer) -> None:
    with valkey.client(decode_responses=False) as client:
        holds_in_any_order(Leases, runs=60, broker=Broker(client))
