"""Audit: a job ends in one transaction with its last attempt and its audit line, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, select, update

from shared.database import insert_all, write_all
from shared.envelope import ENDED, Result
from shared.tables import audit, jobs
from workers.record import Act


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a job ends, in the words of the tables."""

    job_id: str
    fence: int
    result: Result
    finished_at_ms: int
    audit_row: dict[str, Any]


class Audit:
    """Ends jobs."""

    @staticmethod
    def concluding(conclusion: Conclusion) -> tuple[Act[Conclusion, bool], Conclusion]:
        """The end of a job as a write; its answer is False when the claim was lost meanwhile."""
        return _conclude, conclusion


_LOOK = select(jobs.c.id, jobs.c.fence, jobs.c.status).where(
    jobs.c.id.in_(bindparam("ids", expanding=True))
)

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


def _conclude(connection: Connection, items: Sequence[Conclusion]) -> list[bool]:
    look = _LOOK if connection.dialect.name == "sqlite" else _LOOK.with_for_update()
    found = {
        (row.id, row.fence): row.status
        for row in connection.execute(look, {"ids": [item.job_id for item in items]})
    }
    ours = [item for item in items if found.get((item.job_id, item.fence)) == "running"]
    if ours:
        write_all(
            connection,
            _END,
            [
                {
                    "job": item.job_id,
                    "into": item.result.status,
                    "answer": orjson.dumps(item.result.as_json()).decode(),
                    "at": item.finished_at_ms,
                }
                for item in ours
            ],
        )
        insert_all(connection, audit, [item.audit_row for item in ours])
    # Ended under our own fence: this act ran before, and its commit was made but not answered.
    return [found.get((item.job_id, item.fence)) in {"running", *ENDED} for item in items]
