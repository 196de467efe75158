"""Jobs that ended while they waited leave their lines at once: nothing of them stays behind."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate import Client
from headgate.shared.admission.budgets import KNOWN
from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from tests.support.played import settings_for
from tests.support.rig import STANDARD, Broker
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, TICKET

TENANTS, USERS = ("acme", "beta"), ("", "u1", "u2")
IN_TURN = 12


class Line(Broker):
    """A broker whose pool lets nothing through until it is opened."""

    def shut(self) -> None:
        self.client.hset(
            self.keys.gate(POOL, "key0"),
            mapping={"until": self.now_ms() + 3_600_000, "why": "limited"},
        )

    def open(self) -> None:
        self.resume(f"pool/{POOL}")

    def enter(self, n: int, tenant: str, user: str) -> None:
        """The n-th job waits in its room."""
        arrival_ms, job_id = self.now_ms() - 60_000 + n, f"j{n}"
        ticket = replace(TICKET, tenant=tenant, user=user, arrival_ms=arrival_ms).encode()
        message = f'{{"hg":"{job_id}","at":"{ticket}","body":"x"}}'.encode()
        script.run(self.client, broker_jobs.send(self.keys, STANDARD, [(job_id, message)]))
        assert self.take() == []

    def forget(self, *ids: str) -> int:
        return script.run(self.client, broker_jobs.forget(self.keys, ids))

    def waits(self) -> int:
        """How many wait in the room, by the room's own count."""
        return int(self.client.hget(self.keys.waiting_queues(), f"{STANDARD} {POOL}") or 0)

    def left_over(self) -> list[bytes]:
        """Keys of rooms and jobs that are still there."""
        kinds = ("room", "users", "line", "messages", "present", "tickets", "due", "owners")
        return [name for kind in kinds for name in self.names(f"headgate:{kind}*")]

    def names(self, pattern: str) -> list[bytes]:
        found: Any = self.client.keys(pattern)
        return list(found)

    def in_line(self) -> set[str]:
        """The callers who wait in the room."""
        found: Any = self.client.zrange(self.keys.waiting_queue(STANDARD, POOL, "ages"), 0, -1)
        return {one.decode() for one in found}

    def pause(self, member: str) -> None:
        """An operator has paused it, and a worker has met that."""
        self.client.sadd(self.keys.paused(), member)
        self.take()

    def resume(self, member: str) -> None:
        """An operator lets it go on."""
        args = (self.keys.prefix, member)
        script.run(self.client, script.compose("resume", (), args, lambda reply: reply))


@pytest.fixture
def line(valkey: ValkeyServer) -> Iterator[Line]:
    with valkey.client(decode_responses=False) as client:
        line = Line(client)
        line.settle_down()
        line.shut()
        yield line


places = st.lists(
    st.tuples(st.sampled_from(TENANTS), st.sampled_from(USERS)), min_size=1, max_size=IN_TURN
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(who=places, gone=st.sets(st.integers(0, IN_TURN - 1)), passed_over=st.booleans())
def test_whoever_is_forgotten_the_others_keep_their_places_and_their_turns(
    line: Line, who: list[tuple[str, str]], gone: set[int], passed_over: bool
) -> None:
    line.client.flushall()
    line.settle_down()
    line.shut()
    for n, (tenant, user) in enumerate(who):
        line.enter(n, tenant, user)
    if passed_over:
        line.pause("tenant/acme")
    ids = [f"j{n}" for n in sorted(gone) if n < len(who)]
    assert line.forget(*ids, "no-such-job") == len(ids)
    assert line.forget(*ids) == 0
    stay = [n for n in range(len(who)) if n not in gone]
    assert line.waits() == len(stay)
    assert line.present() == {f"j{n}" for n in stay}
    if not stay:
        assert line.left_over() == []
        return
    assert line.in_line() == {"|".join(who[n]) for n in stay}
    line.open()
    line.resume("tenant/acme")
    taken = line.take(IN_TURN)
    assert sorted(taken) == sorted(f"j{n}" for n in stay)
    for caller in set(who):
        own = [f"j{n}" for n in stay if who[n] == caller]
        assert [job_id for job_id in taken if job_id in own] == own
    line.ack(*taken)
    assert line.left_over() == []


def test_a_deferred_job_leaves_the_due_list_with_all_that_is_known_of_it(line: Line) -> None:
    line.send("j1")
    line.take()
    lease = line.lease("j1")
    ticket = TICKET.encode()
    command = broker_jobs.defer(line.keys, lease=lease, wait_ms=60_000, ticket=ticket)
    assert script.run(line.client, command)
    assert line.forget("j1") == 1
    assert line.left_over() == []


def test_a_job_that_a_worker_holds_or_none_has_seen_is_left(line: Line) -> None:
    line.send("j1", "j2")
    assert line.take(1) == ["j1"]
    assert line.forget("j1", "j2") == 0
    assert line.leased() == {"j1": "a"}
    assert line.waiting_ids() == ["j2"]
    assert line.present() == {"j1", "j2"}


def test_a_ticket_that_counts_in_place_of_the_messages_finds_the_line(line: Line) -> None:
    line.send("j1")
    line.take()
    ticket = replace(TICKET, arrival_ms=line.now_ms(), user="u9").encode()
    command = broker_jobs.defer(line.keys, lease=line.lease("j1"), wait_ms=0, ticket=ticket)
    script.run(line.client, command)
    line.make_due()
    assert line.take() == []
    assert line.waits() == 1
    assert line.forget("j1") == 1
    assert line.left_over() == []


def test_cancelled_jobs_leave_their_line_and_take_nothing_from_its_limits(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    with (
        Client(settings_for(valkey.url, sqlite_url, tmp_path)) as producer,
        valkey.client(decode_responses=False) as client,
    ):
        line = Line(client, Keys())
        line.settle_down()
        line.shut()
        client.hset(Keys().budgets(), KNOWN, "none")  # as workers tell at their start
        jobs = [producer.submit(f"prompt {n}", model="gpt-4o-mini") for n in range(250)]
        while line.fetch(200).more:
            pass
        assert line.waits() == 250
        for job in jobs[:100]:
            assert job.cancel().status == "cancelled"
        assert line.waits() == 150
        line.open()
        assert line.take(1) == [jobs[100].id]
        assert client.hget(line.keys.bucket(f"pool/{POOL}", "key0"), "running") == b"1"
