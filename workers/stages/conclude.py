"""Conclude: end a job in one transaction with its last attempt and its audit line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from headgate.shared.cost.price import usd_text
from headgate.shared.database.many_rows import find, insert_all, write_all
from headgate.shared.database.tables import audit, callbacks, jobs, webhook_deliveries
from headgate.shared.job.result import ENDED, WAITING, Result
from headgate.shared.job.result_text import decode_result, encode_result
from headgate.workers.clients.group_commit import Act


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a job ends, as the tables have it. `payers`: jobs that each pay a part of its cost.

    `callbacks_due_at_ms`: from when on maintenance may send its callbacks; None if it has none.
    `event`: the row of the event for its webhook; None if it has none.
    """

    job_id: str
    fence: int
    result: Result
    finished_at_ms: int
    audit_row: dict[str, Any]
    payers: tuple[str, ...] = ()
    callbacks_due_at_ms: int | None = None
    event: dict[str, Any] | None = None


class Conclude:
    """Ends jobs."""

    @staticmethod
    def concluding(conclusion: Conclusion) -> tuple[Act[Conclusion, Result | None], Conclusion]:
        """Return the write that ends a job.

        Its answer is the result, with what the job itself pays; None if the claim was lost.
        """
        return _conclude, conclusion


_LOOK = select(jobs.c.id, jobs.c.fence, jobs.c.status).with_for_update()

_END = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(
        status=bindparam("into"),
        result=bindparam("answer"),
        finished_at_ms=bindparam("at"),
        retry_at_ms=None,
    )
)


_PAYERS = select(jobs.c.id).where(
    jobs.c.id.in_(bindparam("ids", expanding=True)),
    jobs.c.status.in_(WAITING),
    jobs.c.share_pico_usd.is_(None),
)

_PAY = (
    update(jobs)
    .where(jobs.c.id.in_(bindparam("ids", expanding=True)))
    .values(share_pico_usd=bindparam("amount"))
)

_BEFORE = select(jobs.c.id, jobs.c.result)


def _conclude(connection: Connection, items: Sequence[Conclusion]) -> list[Result | None]:
    ids = [item.job_id for item in items]
    found = {
        (job_id, fence): status for job_id, fence, status in find(connection, _LOOK, jobs.c.id, ids)
    }
    ours = [
        _split(connection, item) if item.payers else item
        for item in items
        if found.get((item.job_id, item.fence)) == "running"
    ]
    results: dict[str, Result | None] = {item.job_id: item.result for item in ours}
    if ours:
        ends = {item.job_id: _ended(item) for item in ours}
        write_all(connection, _END, list(ends.values()))
        insert_all(connection, audit, [item.audit_row for item in ours])
        unsent = [
            {"job_id": item.job_id, "due_at_ms": item.callbacks_due_at_ms}
            for item in ours
            if item.callbacks_due_at_ms is not None
        ]
        if unsent:
            insert_all(connection, callbacks, unsent)
        if events := [item.event for item in ours if item.event is not None]:
            insert_all(connection, webhook_deliveries, events)
    # Ended under our own fence: this act ran before; its commit was made, but not confirmed.
    again = [item.job_id for item in items if found.get((item.job_id, item.fence)) in ENDED]
    if again:
        for job_id, before in find(connection, _BEFORE, jobs.c.id, again):
            results[job_id] = decode_result(before) if before else None
    return [
        results.get(item.job_id) if (item.job_id, item.fence) in found else None for item in items
    ]


def _ended(item: Conclusion) -> dict[str, Any]:
    return {
        "job": item.job_id,
        "into": item.result.status,
        "answer": encode_result(item.result),
        "at": item.finished_at_ms,
    }


def _split(connection: Connection, item: Conclusion) -> Conclusion:
    """Write their parts to the jobs that pay them; return the conclusion with what is left.

    Whoever ends such a job writes its part into its audit line. So all lines add up to the bill.
    """
    cost = item.audit_row["cost_pico_usd"]
    look = _PAYERS if connection.dialect.name == "sqlite" else _PAYERS.with_for_update()
    ids = list(connection.scalars(look, {"ids": list(item.payers)}))
    if not ids or not cost:
        return item
    part = cost // (len(ids) + 1)
    connection.execute(_PAY, {"ids": ids, "amount": part})
    own = cost - part * len(ids)
    result = replace(item.result, cost_usd=usd_text(own))
    return replace(item, result=result, audit_row={**item.audit_row, "cost_pico_usd": own})
