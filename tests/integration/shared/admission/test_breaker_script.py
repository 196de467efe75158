"""The breaker of a model and key: reports open and close it, and every grant obeys it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.shared.admission import breakers
from headgate.shared.admission.breakers import BreakerAfterReport, BreakerRules, report
from headgate.shared.admission.grant import Held, ModelDown, decode
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from tests.support.governor_model import Governor, Places, a_hold
from tests.support.machines import holds_in_any_order
from tests.support.rig import STANDARD
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, TICKET

MODEL = "openai/gpt-4o-mini"
RULES = BreakerRules(failures=5, share=0.5, open_s=60, healthy_s=300)
MARKS = ("retry_at", "shut_at", "probe_until", "fault_at", "healthy_at")


class Breakers(Governor):
    """A governor whose models can fail."""

    def tell(
        self, *, rules: BreakerRules = RULES, model: str = MODEL, **how: Any
    ) -> BreakerAfterReport:
        """Report, as a worker, how calls went."""
        return script.run(self.client, report(self.keys, model, "key0", rules, **how))

    def fail(self, times: int = 5, **others: Any) -> BreakerAfterReport:
        """So many calls have failed, one after the other."""
        return [self.tell(failed=1, **others) for _ in range(times)][-1]

    def later(self, seconds: float) -> None:
        """So much time has passed for breakers."""
        for name in self._names("headgate:breaker:*"):
            found = self._hash(name)
            slots = [part for part in found if part.startswith("slot")]
            if slots:
                self.client.hdel(name, *slots)
            for part in found.keys() & set(MARKS):
                self.client.hset(name, part, f"{float(found[part]) - seconds * 1000:.0f}")
            for number, _, counts in (found[part].partition(" ") for part in slots):
                moved = int(number) - int(seconds // 10)
                self.client.hset(name, f"slot{moved % 6}", f"{moved} {counts}")
        self.resume("")

    def health(self) -> breakers.ModelHealth:
        """Return the health of the model."""
        [one] = breakers.states(self.client, self.keys)
        return one

    def marks(self, want: int = 10, **others: Any) -> dict[str, Any]:
        """Fetch once; return the mark of the probe, or else the kind of the grant, by job id."""
        grants = self.grants(want, **others)
        return {
            i: grant.probe if isinstance(grant, Held) else type(grant)
            for i, grant in grants.items()
        }


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Breakers]:
    with valkey.client(decode_responses=False) as client:
        broker = Breakers(client)
        broker.settle_down()
        yield broker
        assert Places.of(broker, [STANDARD]).faults == []


def test_five_failures_in_a_row_open_it_for_a_minute(broker: Breakers) -> None:
    assert broker.fail(4) == BreakerAfterReport("", 0)
    broker.tell(answered=1, took_ms=10)
    assert broker.fail(4) == BreakerAfterReport("", 0)
    before_ms = broker.now_ms()
    assert broker.tell(failed=1) == BreakerAfterReport("opened", 60_000)
    broker.ask("1")
    assert broker.take() == []
    found = broker.fetch()
    assert found.next_due_ms is not None
    passed_ms = broker.now_ms() - before_ms + 1
    assert 60_000 - passed_ms <= found.next_due_ms <= 60_000, "and the worker knows until when"
    assert broker.health().state == "down"
    assert breakers.down_models(broker.client, broker.keys) == {MODEL}


def test_half_of_many_calls_open_it_though_never_five_in_a_row(broker: Breakers) -> None:
    told = []
    for _ in range(12):
        told += [broker.tell(answered=1, took_ms=5).verdict, broker.tell(failed=1).verdict]
    assert told.index("opened") == 19, "from twenty calls on"


def test_a_flaky_model_is_no_dead_one_and_its_death_is_seen_all_the_same(
    broker: Breakers,
) -> None:
    """At 20 % of 300 calls five failures in a row come by chance; seven do not."""
    for _ in range(60):
        assert broker.fail(1).verdict == ""
        broker.tell(answered=4, took_ms=4)
    for n in range(1, 7):
        assert broker.fail(1).verdict == "", n
    assert [broker.fail(1).verdict for _ in range(2)] == ["opened", "open"]


def test_answers_that_are_reported_with_a_failure_came_before_it(broker: Breakers) -> None:
    for _ in range(20):
        assert broker.tell(answered=9, took_ms=9, failed=1).verdict == ""
        assert broker.fail(3).verdict == ""


def test_with_no_failures_allowed_for_it_never_opens(broker: Breakers) -> None:
    assert broker.fail(50, rules=replace(RULES, failures=0)).verdict == ""
    broker.ask("1")
    assert broker.take() == ["1"]


def test_one_probe_may_go_after_a_minute_and_an_answer_closes_it(broker: Breakers) -> None:
    broker.fail()
    broker.ask("1", "2", "3")
    broker.later(61)
    assert breakers.down_models(broker.client, broker.keys) == set(), "somebody has to ask it"
    marks = broker.marks()
    assert list(marks) == ["1"]
    assert marks["1"] != ""
    assert broker.take() == []
    assert broker.health().why == "a probe is under way"
    assert broker.tell(answered=1, took_ms=20).verdict == "open", "an answer from before"
    assert broker.tell(answered=1, took_ms=20, probe=marks["1"]) == BreakerAfterReport("closed", 0)
    assert broker.marks() == {"2": "", "3": ""}
    assert broker.health().state == "degraded"
    broker.later(300)
    assert broker.health().state == "healthy"


def test_a_probe_that_fails_opens_it_for_another_minute(broker: Breakers) -> None:
    broker.fail()
    broker.ask("1", "2")
    broker.later(61)
    [mark] = broker.marks().values()
    assert broker.tell(failed=1, probe=mark) == BreakerAfterReport("open", 60_000)
    broker.ack("1")
    assert broker.take() == []
    assert broker.tell(answered=1, probe=mark).verdict == "open", "told once"
    broker.later(61)
    assert list(broker.marks()) == ["2"]


def test_a_breaker_that_nobody_knows_the_opening_of_hears_its_probes_all_the_same(
    broker: Breakers,
) -> None:
    broker.fail()
    broker.client.hdel(broker.keys.breaker(MODEL, "key0"), "since")
    broker.later(61)
    broker.ask("1", "2")
    [mark] = broker.marks().values()
    told = broker.tell(failed=1, probe=mark)
    assert told == BreakerAfterReport("open", 60_000), "else probe follows probe without end"


def test_one_probe_goes_however_many_workers_ask(broker: Breakers, valkey: ValkeyServer) -> None:
    broker.fail()
    broker.ask(*(f"{n}" for n in range(40)))
    broker.later(61)

    def ask(n: int) -> list[str]:
        with valkey.client(decode_responses=False) as client:
            own = Breakers(client)
            return [job for _ in range(10) for job in own.take(owner=f"w{n}")]

    with ThreadPoolExecutor(4) as threads:
        taken = [job for jobs in threads.map(ask, range(4)) for job in jobs]
    assert len(taken) == 1


def test_a_probe_whose_worker_died_leaves_the_place_to_another(broker: Breakers) -> None:
    broker.fail()
    broker.ask("1", "2")
    broker.later(61)
    [first] = broker.marks().values()
    broker.lapse("1")
    [second] = broker.marks(owner="b").values()
    assert second != first


def test_an_answer_that_takes_longer_than_the_next_probe_waits_closes_it_all_the_same(
    broker: Breakers,
) -> None:
    broker.fail()
    broker.ask("1", "2", "3")
    broker.later(61)
    [first] = broker.marks().values()
    broker.later(61)
    [second] = broker.marks().values()
    assert broker.tell(answered=1, took_ms=70_000, probe=first).verdict == "closed"
    broker.fail()
    assert broker.tell(answered=1, probe=second).verdict == "open", "it was asked before that"


def test_a_probe_without_a_report_leaves_its_place_to_another(broker: Breakers) -> None:
    broker.fail()
    broker.ask("1", "2")
    broker.later(61)
    assert list(broker.marks()) == ["1"]
    broker.ack("1")
    assert list(broker.marks()) == ["2"]


def test_a_further_attempt_learns_that_its_model_is_down(broker: Breakers) -> None:
    broker.ask("1")
    [(job_id, grant)] = broker.holds().items()
    broker.settle(job_id, grant, None)
    broker.fail()
    ticket = replace(TICKET, arrival_ms=broker.now_ms())
    answer = broker.reserve(job_id, "1:2", ticket)
    assert isinstance(answer, int)
    assert -60_001 <= answer < -50_000, "broken, and for how long"
    broker.later(61)
    again = broker.reserve(job_id, "1:2", ticket)
    assert isinstance(again, str)
    assert a_hold(decode(again)).probe
    broker.ack("1")


def test_a_job_that_another_model_may_answer_leaves_at_once(broker: Breakers) -> None:
    broker.fail()
    broker.ask("patient")
    broker.ask("replaceable", "other", replaceable=True)
    found: dict[str, Any] = {}
    for _ in range(5):
        found |= broker.marks()
    assert found == {"replaceable": ModelDown, "other": ModelDown}


def test_a_neighbour_in_the_same_pool_is_not_held_up(broker: Breakers) -> None:
    broker.limit(**{f"models/{POOL}": "n=2"})
    broker.fail()
    broker.ask("1", "2")
    broker.ask("3", model="gpt-4o-mini-twin")
    assert broker.take() == ["3"]
    assert broker.due() == {"1", "2"}, "they come back when a probe may go"
    broker.later(61)
    broker.make_due()
    assert [mark != "" for mark in broker.marks().values()] == [True]


@pytest.mark.parametrize("down", ["gpt-4o-mini", "ft:gpt-4o-mini:acme::1"])
def test_a_fine_tune_and_the_model_it_is_of_do_not_hold_each_other_up(
    down: str, broker: Breakers
) -> None:
    tuned = "ft:gpt-4o-mini:acme::1"
    broker.limit(**{f"pool/{POOL}": "rpm=60000"})
    broker.fail(model=f"openai/{down}")
    broker.ask("tuned", model=tuned, variant_of="gpt-4o-mini")
    broker.ask("base", model="gpt-4o-mini")
    up, waits = ("base", "tuned") if down == tuned else ("tuned", "base")
    assert broker.take() == [up]
    assert broker.due() == {waits}


def test_where_its_pool_is_its_own_all_wait_in_line(broker: Breakers) -> None:
    broker.fail()
    broker.ask("1", "2")
    assert broker.take() == []
    assert broker.due() == set()


def test_a_model_that_is_slow_or_fails_in_part_is_degraded(broker: Breakers) -> None:
    broker.tell(answered=1000, took_ms=1000 * 400)
    assert broker.health().state == "healthy"
    broker.later(120)
    broker.tell(answered=50, took_ms=50 * 5000)
    assert "times as slow" in broker.health().why
    never = replace(RULES, failures=0)
    broker.fail(10, rules=never)
    assert broker.health().why == "17% of its calls fail"
    assert broker.health().state == "degraded"


def test_all_it_keeps_expires(broker: Breakers) -> None:
    broker.fail()
    for name in (broker.keys.breaker(MODEL, "key0"), broker.keys.breakers()):
        assert 80_000 < broker.client.ttl(name) <= 86_400


@dataclass
class Model:
    """The same in Python, in seconds."""

    now: float = 0.0
    row: int = 0
    opened: bool = False
    retry_at: float = 0.0
    probe: str | None = None
    probe_until: float = 0.0
    probes: set[str] = field(default_factory=set)
    calls: list[tuple[int, bool]] = field(default_factory=list)

    def may_go(self) -> bool:
        if not self.opened:
            return True
        return self.now >= self.retry_at and not (self.probe and self.now < self.probe_until)

    def open(self) -> str:
        self.opened, self.retry_at, self.probe, self.row = True, self.now + 60, None, 0
        self.probes.clear()
        return "opened"

    def tell(self, slot: int, *, ok: bool, mark: str) -> str:
        """`slot`: the 10 s in which it is told."""
        self.calls.append((slot, ok))
        if self.opened and mark in self.probes:
            if not ok:
                self.open()
                return "open"
            self.opened, self.probe, self.row = False, None, 0
            self.calls = [(slot, True)]
            return "closed"
        if self.opened:
            return "open"
        self.row = 0 if ok else self.row + 1
        of_minute = [good for at, good in self.calls if at > slot - 6]
        bad = of_minute.count(False)
        share = len(of_minute) >= 20 and bad >= 0.5 * len(of_minute)
        in_a_row = self.row >= 5 and not self.is_chance(len(of_minute), bad)
        return self.open() if not ok and (in_a_row or share) else ""

    def is_chance(self, calls: int, bad: int) -> bool:
        before, bad_before = calls - self.row, bad - self.row
        if before < 20 or bad_before < 0.05 * before:
            return False
        return (bad_before / before) ** self.row * calls >= 0.01


class Machine(RuleBasedStateMachine):
    """Grants, reports and time in any order; both must agree at each step."""

    client: Any

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.broker = Breakers(self.client)
        self.broker.settle_down()
        self.model = Model()
        self.jobs = 0
        self.running: dict[str, str] = {}

    @rule()
    def fetch(self) -> None:
        self.jobs += 1
        self.broker.ask(str(self.jobs))
        marks = self.broker.marks(1)
        assert bool(marks) == self.model.may_go()
        for job_id, mark in marks.items():
            assert bool(mark) == self.model.opened
            if mark:
                self.model.probe, self.model.probe_until = mark, self.model.now + 60
                self.model.probes.add(mark)
            self.running[job_id] = mark

    @rule(ok=st.booleans(), pick=st.integers(0, 10))
    def end(self, ok: bool, pick: int) -> None:
        if not self.running:
            return
        job_id = sorted(self.running)[pick % len(self.running)]
        mark = self.running.pop(job_id)
        told = self.broker.tell(probe=mark, answered=int(ok), failed=int(not ok))
        slot = self.broker.now_ms() // 10_000 + int(self.model.now) // 10
        assert told.verdict == self.model.tell(slot, ok=ok, mark=mark)
        self.broker.ack(job_id)

    @rule(times=st.integers(1, 6), ok=st.booleans())
    def end_some(self, times: int, ok: bool) -> None:
        for _ in range(times):
            self.fetch()
            self.end(ok, 0)

    @rule(pick=st.integers(0, 10))
    def vanish(self, pick: int) -> None:
        if not self.running:
            return
        job_id = sorted(self.running)[pick % len(self.running)]
        mark = self.running.pop(job_id)
        self.broker.ack(job_id)
        if mark and mark == self.model.probe:
            self.model.probe = None

    @rule(tens=st.integers(1, 8))
    def wait(self, tens: int) -> None:
        self.broker.later(tens * 10)
        self.model.now += tens * 10

    @invariant()
    def both_agree(self) -> None:
        found = self.broker._hash(Keys().breaker(MODEL, "key0"))
        assert (found.get("state") == "open") == self.model.opened
        assert int(found.get("row", 0)) == self.model.row


def test_any_order_of_grants_reports_and_time_is_as_the_model_says(valkey: ValkeyServer) -> None:
    with valkey.client(decode_responses=False) as client:
        holds_in_any_order(Machine, runs=30, steps=30, client=client)
