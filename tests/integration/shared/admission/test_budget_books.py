"""Budgets against a model: whatever workers do and however they die, no budget is overspent."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from headgate.shared.admission.budgets import in_force
from headgate.shared.admission.grant import Cheaper, Grant, Held, OverBudget, decode
from headgate.shared.admission.scopes import quoted
from headgate.shared.admission.ticket import Ticket
from tests.support.budgets import USD, Treasury, ticket
from tests.support.governor_model import a_hold
from tests.support.machines import holds_in_any_order
from tests.support.rig import BULK, STANDARD
from tests.support.servers import ValkeyServer

QUEUES = (STANDARD, BULK)
PICKS = st.integers(0, 65_535)
OWNERS = st.sampled_from(["a", "b"])
TEXTS = st.sampled_from(
    ["", "usd_per_day=0 hard=1", "usd_per_day=2 hard=1", "usd_per_day=5", "usd_per_month=4 hard=1",
     "usd_per_day=3.5 usd_per_month=30 soft=0.5 hard=1.5 at_soft=gpt-tiny", "usd_per_day=40"]
)  # fmt: skip
BUDGETS = st.fixed_dictionaries(
    dict.fromkeys(("global", "tenant/acme", "tenant/*", "user/acme/ann%2F"), TEXTS)
)
TICKETS = st.builds(
    lambda tenths, **fields: ticket(
        None if tenths is None else tenths * USD // 10, arrival_ms=1_000_000, **fields
    ),
    st.none() | st.integers(0, 25),
    priority=st.sampled_from(["standard", "bulk"]),
    tenant=st.sampled_from(["acme", "b|,:@"]),
    user=st.sampled_from(["", "ann/"]),
)
Place = tuple[str, str]


class Spending(RuleBasedStateMachine):
    """Two workers take, pay for, lose and give back jobs while budgets and days change."""

    broker: Treasury

    @initialize(budgets=BUDGETS)
    def start(self, budgets: dict[str, str]) -> None:
        self.broker.client.flushall()
        self.broker.settle_down()
        self.tickets: dict[str, Ticket] = {}
        self.leased: dict[str, str] = {}
        self.held: dict[str, Held] = {}
        self.spent: Counter[Place] = Counter()
        self.most: dict[Place, float] = {}
        self.attempts = 0
        self.change(budgets)

    @rule(budgets=BUDGETS)
    def change(self, budgets: dict[str, str]) -> None:
        self.budgets = {scope: text for scope, text in budgets.items() if text}
        self.broker.budget(self.budgets)
        self.broker.resume("")
        for place in self.most:
            self.most[place] = max(self.most[place], self._hard(place))

    def _hard(self, place: Place) -> float:
        scope, period = place
        budget = in_force(self.budgets, {}, scope)
        limit = budget.of(period) if budget else None
        return 0 if budget is None or limit is None else limit * budget.hard

    def _places(self, one: Ticket) -> list[Place]:
        """Return the budgets that bind a job now."""
        tenant, user = quoted(one.tenant), quoted(one.user)
        scopes = ["global", f"tenant/{tenant}", *([f"user/{tenant}/{user}"] if user else [])]
        found = []
        for scope in scopes:
            budget = in_force(self.budgets, {}, scope)
            found += [(scope, period) for period in self.broker.periods()
                      if budget is not None and budget.of(period) is not None]  # fmt: skip
        return found

    def _named(self, grant: Held) -> tuple[int, list[Place]]:
        """Return the upper bound and the books that a grant names."""
        bound, _, where = grant.money.partition("@")
        places = [(w.rpartition(":")[0], w.rpartition(":")[2]) for w in where.split(",") if w]
        return int(bound or 0), places

    def _holding(self) -> Counter[Place]:
        held: Counter[Place] = Counter()
        for grant in self.held.values():
            bound, places = self._named(grant)
            held.update(dict.fromkeys(places, bound))
        return held

    def _answered(self, job_id: str, grant: Grant, *, is_held: bool = True) -> None:
        """Check that a script has answered as the model does."""
        one = self.tickets[job_id]
        binding, held = self._places(one), self._holding()
        if isinstance(grant, OverBudget):
            bound = one.upper_bound_pico_usd
            assert binding
            assert bound is None or any(
                self.spent[place] + bound > self._hard(place) for place in binding
            )
            return
        if isinstance(grant, Cheaper):
            assert one.priority == "bulk"
            return
        assert isinstance(grant, Held)
        bound, places = self._named(grant)
        assert binding == [] or one.upper_bound_pico_usd is not None
        assert bound == (one.upper_bound_pico_usd if binding else 0)
        assert places == (binding if bound else [])
        for place in places:
            assert self.spent[place] + held[place] + bound <= self._hard(place)
            self.most[place] = max(self.most.get(place, 0), self._hard(place))
        if is_held:
            self.held[job_id] = grant
        else:
            self.spent.update(dict.fromkeys(places, bound))

    def _end(self, job_id: str, cost: int | None) -> None:
        """End the hold of the job at this cost; None is an unknown cost."""
        if grant := self.held.pop(job_id, None):
            bound, places = self._named(grant)
            self.spent.update(dict.fromkeys(places, bound if cost is None else cost))

    def _any(self, pick: int, of: Iterable[str]) -> list[str]:
        found = sorted(of)
        return [found[pick % len(found)]] if found else []

    def _some(self, pick: int, of: Iterable[str]) -> list[str]:
        return [job_id for n, job_id in enumerate(sorted(of)) if pick >> n % 16 & 1]

    @rule(one=TICKETS, count=st.integers(1, 6))
    def send(self, one: Ticket, count: int) -> None:
        ids = [f"j{len(self.tickets) + n}" for n in range(count)]
        self.tickets |= dict.fromkeys(ids, one)
        self.broker.ask_with(one, *ids, queue=BULK if one.priority == "bulk" else STANDARD)

    @rule(owner=OWNERS, want=st.integers(1, 12))
    def fetch(self, owner: str, want: int) -> None:
        self.broker.advance(60_000)
        for job in self.broker.fetch(want, owner=owner, queues=QUEUES).taken:
            self._answered(job.id, decode(job.grant))
            self.leased[job.id] = owner

    @rule(pick=PICKS, share=st.sampled_from([0, 0.25, 1, 1, None]))
    def pay_twice(self, pick: int, share: float | None) -> None:
        for job_id in self._any(pick, self.held):
            grant = self.held[job_id]
            bound = self._named(grant)[0]
            cost = None if share is None else int(bound * share)
            assert self.broker.pay(job_id, grant, cost)
            assert not self.broker.pay(job_id, grant, cost)
            self._end(job_id, cost)

    @rule(pick=PICKS)
    def send_nothing(self, pick: int) -> None:
        for job_id in self._any(pick, self.held):
            assert self.broker.settle(job_id, self.held[job_id], None)
            self._end(job_id, 0)

    @rule(pick=PICKS)
    def ack(self, pick: int) -> None:
        for job_id in self._some(pick, self.leased):
            self.broker.ack(job_id, owner=self.leased.pop(job_id))
            self._end(job_id, None)

    @rule(pick=PICKS)
    def die(self, pick: int) -> None:
        ids = self._some(pick, self.leased)
        if ids:
            self.broker.settle_down()
            self.broker.lapse(*ids)
            self.broker.fetch(0, queues=())
        for job_id in ids:
            del self.leased[job_id]
            self._end(job_id, None)

    @rule(pick=PICKS)
    def give_back(self, pick: int) -> None:
        for job_id in self._any(pick, self.leased):
            self.broker.restore(job_id, owner=self.leased.pop(job_id))
            self._end(job_id, None)

    @rule(pick=PICKS, late=st.booleans())
    def ask_again(self, pick: int, late: bool) -> None:
        """One more attempt in the same run; or of a worker that does not know its lease is over."""
        others = self.tickets.keys() - self.leased.keys()
        for job_id in self._any(pick, others if late else self.leased):
            self.attempts += 1
            self._end(job_id, None)
            answer = self.broker.reserve(job_id, f"try{self.attempts}", self.tickets[job_id])
            if isinstance(answer, str):
                self._answered(job_id, decode(answer), is_held=job_id in self.leased)

    @rule()
    def midnight(self) -> None:
        before = self.broker.periods()[0]
        self.broker.a_day_later()
        yesterday = self.broker.day_before(before)

        def moved(place: Place) -> Place:
            return (place[0], yesterday) if place[1] == before else place

        spent = self.spent
        self.spent = Counter()
        for place, amount in spent.items():
            self.spent[moved(place)] += amount
        held: dict[str, Any] = self.broker._hash(self.broker.keys.holds())
        self.held = {job_id: a_hold(decode(held[job_id])) for job_id in self.held}
        self.most = {place: most for place, most in self.most.items() if place[1] != before}
        self.broker.budget(self.budgets)

    @invariant()
    def books_are_those_of_the_model(self) -> None:
        if not hasattr(self, "budgets"):
            return
        held = self._holding()
        for scope, period in self.spent.keys() | held.keys():
            expected = (self.spent[scope, period], held[scope, period])
            assert self.broker.book(scope, period) == expected

    @invariant()
    def nothing_is_overspent(self) -> None:
        if hasattr(self, "budgets"):
            held = self._holding()
            for place, most in self.most.items():
                assert self.spent[place] + held[place] <= most


def test_no_budget_is_overspent_whatever_workers_do(valkey: ValkeyServer) -> None:
    with valkey.client(decode_responses=False) as client:
        holds_in_any_order(Spending, shrinks=False, broker=Treasury(client))
