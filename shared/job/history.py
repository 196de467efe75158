"""What the earlier attempts of a job amount to: tries, money, failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headgate.shared.errors import ErrorCode
from headgate.shared.job.result import FailedAttempt

CUT_OFF = "a worker died while the provider was answering"


class LedgerRow(Protocol):
    """The columns of an attempt in the ledger that a history is made of."""

    @property
    def model(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def code(self) -> ErrorCode | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def http_status(self) -> int | None: ...
    @property
    def waited_ms(self) -> int: ...
    @property
    def cost_pico_usd(self) -> int | None: ...
    @property
    def fence(self) -> int: ...


@dataclass(slots=True)
class History:
    """The attempts of a job so far.

    `cost_pico_usd`: what the known ones cost, and the parts of those that broke off; None once a
    price is not known. `parts_pico_usd`: those parts alone. `unknown_models`: the model of each
    attempt of which nobody knows whether it was billed.
    """

    attempts: int = 0
    cost_pico_usd: int | None = 0
    parts_pico_usd: int = 0
    unknown_models: list[str] = field(default_factory=list)
    failures: list[FailedAttempt] = field(default_factory=list)

    def add_cost(self, pico_usd: int | None) -> None:
        """Add to what the job has cost; a price of None makes the sum unknown."""
        known = self.cost_pico_usd is not None and pico_usd is not None
        self.cost_pico_usd = (self.cost_pico_usd or 0) + (pico_usd or 0) if known else None

    def add_part(self, pico_usd: int) -> None:
        """Add the cost of what an attempt of unknown billing has made at least."""
        self.add_cost(pico_usd)
        self.parts_pico_usd += pico_usd


def late_message(plain: str, failures: Sequence[FailedAttempt]) -> str:
    """Return why a job is past its deadline: `plain`, and how its last attempt failed, if any did.

    A model that was down was not asked, so that is no attempt; it is named where none was made.
    """
    if not failures:
        return plain
    asked = [one for one in failures if one.code != "breaker_open"]
    if not asked:
        return f"{plain}; {failures[-1].model} was down"
    last = asked[-1]
    return f"{plain}; its last attempt, at {last.model}, failed with {last.code}: {last.message}"


def history_of(
    rows: Iterable[LedgerRow], *, share_pico_usd: int = 0, forgiven_fence: int = 0
) -> History:
    """Return the history that these rows of the ledger tell, in their order.

    `share_pico_usd`: the job's part of the call of an equal job. Failures under claims up to
    `forgiven_fence` are left out: an operator has reopened the job since.
    """
    history = History(cost_pico_usd=share_pico_usd)
    for row in rows:
        history.attempts += 1
        if row.state in ("open", "unknown"):
            history.unknown_models.append(row.model)
            if row.cost_pico_usd is not None:  # of the part that was made
                history.add_part(row.cost_pico_usd)
        else:
            history.add_cost(row.cost_pico_usd)
        if row.state != "answered" and row.fence > forgiven_fence:
            history.failures.append(
                FailedAttempt(
                    row.model, row.code or "internal", row.message or CUT_OFF, row.http_status,
                    row.waited_ms,
                )
            )  # fmt: skip
    return history
